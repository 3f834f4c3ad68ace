"""Parse the address of a camera, and print it without its secrets."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Literal
from urllib.parse import parse_qsl, quote, unquote, urlsplit

from edge.errors import ConfigError
from edge.redact import has_ambiguous_credentials, redact_address
from edge.telemetry.known_secrets import hide

SourceKind = Literal["rtsp", "v4l2", "file", "csi", "folder", "gstreamer"]

_SCHEMES = "rtsp://, rtsps://, v4l2://, csi://, file://, folder:// or gst:"
_KEYS = {
    "v4l2": {"width", "height", "fps"},
    "csi": {"width", "height", "fps"},
    "file": {"loop"},
    "folder": {"fps", "loop"},
}
_MIN_FPS, _MAX_FPS = 0.001, 1000.0  # as a fraction of thousandths, as GStreamer gets it
_MAX_SIDE_PX = 65535
_AUTHORITY = re.compile(r"(?P<host>\[[0-9a-fA-F:.]+(?:%[A-Za-z0-9._~-]+)?\]|[^:%\[\]\s]+)(?::(?P<port>[0-9]{1,5}))?")
_AROUND = " \t\r\n\u00a0\u200b\ufeff"  # what copying adds before and behind an address
_PRINTABLE = "".join(map(chr, range(0x21, 0x7F)))


@dataclass(frozen=True, slots=True)
class Source:
    """A camera's address. It prints as `redacted`."""

    kind: SourceKind
    location: str = field(repr=False)  # URL without credentials, path, device, sensor or pipeline
    redacted: str  # for logs, errors and events
    user: str | None = field(default=None, repr=False)
    password: str | None = field(default=None, repr=False)
    fps: float | None = None  # requested from a camera, or the pace of a folder
    width: int | None = None  # requested from a camera, pixels
    height: int | None = None
    loop: bool = False

    def __str__(self) -> str:
        """The address without secrets."""
        return self.redacted

    @property
    def recorded(self) -> bool:
        """Whether this is a file or a folder, not a camera."""
        return self.kind in {"file", "folder"}

    @property
    def url(self) -> str:
        """The RTSP URL with its credentials, percent-encoded. Never print it."""
        if self.user is None:
            return self.location
        scheme, rest = self.location.split("://", 1)
        password = "" if self.password is None else ":" + quote(self.password, safe="")
        return f"{scheme}://{quote(self.user, safe='')}{password}@{rest}"

    @property
    def address(self) -> tuple[str, int]:
        """Host and port of an RTSP camera."""
        url = urlsplit(self.location)
        return url.hostname or "", url.port or (322 if url.scheme == "rtsps" else 554)

    def scrub(self, text: str) -> str:
        """Return a library's message about this source without the credentials it may quote."""
        return hide(text, (self.password, self.url if self.user else None))


def parse_source(text: str) -> Source:
    """Parse a camera's address.

    Args:
        text: `rtsp://user:password@host/path`, `v4l2:///dev/video0?width=1280&height=720&fps=30`, `csi://0`,
            `file:///x.mp4?loop=1`, `folder:///photos/*.jpg?fps=2&loop=1`, or `gst:` and a pipeline that ends in
            `appsink name=sink`. A file or folder without the third slash is relative to the working directory.

    Raises:
        ConfigError: the scheme or a key is unknown, or a value is invalid.
    """
    text = _tidy(text)
    if text.startswith("gst:"):
        return _parse_pipeline(text)
    if not text.isprintable():
        raise ConfigError(f"{_shown(text)}: it contains a line break or another invisible character; remove it")
    scheme, mark, rest = text.partition("://")
    if mark and scheme in {"rtsp", "rtsps"}:
        return _parse_rtsp(text, scheme, rest)
    if not mark or scheme not in _KEYS:
        raise ConfigError(f"{_shown(text)}: no known scheme; use {_SCHEMES}")
    path, _, query = rest.partition("?")
    location = unquote(path)
    if not location:
        raise ConfigError(f"{_shown(text)}: nothing follows ://; give a path or number")
    if "\0" in location:
        raise ConfigError(f"{_shown(text)}: a path cannot contain %00; remove it")
    if scheme == "v4l2" and location.isdigit():
        location = f"/dev/video{location}"
    pairs = _parse_query(text, scheme, query)
    return Source(
        kind=scheme,  # type: ignore[arg-type]  # the keys of _KEYS are kinds
        location=location,
        redacted=redact_address(text),
        fps=pairs.get("fps"),
        width=int(pairs["width"]) if "width" in pairs else None,
        height=int(pairs["height"]) if "height" in pairs else None,
        loop=bool(pairs.get("loop", 0)),
    )


def _tidy(text: str) -> str:
    """Return an address without blanks around it, and with its scheme in lower case (RFC 3986 3.1)."""
    text = text.strip(_AROUND)
    scheme, colon, rest = text.partition(":")
    return f"{scheme.lower()}{colon}{rest}" if scheme.lower() in {*_KEYS, "rtsp", "rtsps", "gst"} else text


def _shown(text: str) -> str:
    return f"source {redact_address(text)!r}"


def _parse_query(text: str, scheme: str, query: str) -> dict[str, float]:
    pairs: dict[str, float] = {}
    for key, value in parse_qsl(query, keep_blank_values=True):
        if key not in _KEYS[scheme]:
            fix = f"use one of {sorted(_KEYS[scheme])}, and write ? in a path as %3F"
            raise ConfigError(f"{_shown(text)}: unknown key {key!r}; {fix}")
        if key in pairs:
            raise ConfigError(f"{_shown(text)}: key {key!r} appears twice; remove one")
        pairs[key] = _number(text, key, value)
    return pairs


def _number(text: str, key: str, value: str) -> float:
    try:
        number = float(value)
    except ValueError:
        number = -1.0
    allowed, is_allowed = {
        "loop": ("0 or 1", number in {0.0, 1.0}),
        "fps": (f"a number from {_MIN_FPS:g} to {_MAX_FPS:g}", _MIN_FPS <= number <= _MAX_FPS),
    }.get(key, (f"a whole number from 1 to {_MAX_SIDE_PX}", 1 <= number <= _MAX_SIDE_PX and number.is_integer()))
    if not is_allowed:
        raise ConfigError(f"{_shown(text)}: {key}={value!r} is not {allowed}")
    return number


def _parse_pipeline(text: str) -> Source:
    pipeline = text.removeprefix("gst:").strip()
    if not re.search(r"\bappsink\b[^!]*\bname=sink\b[^!]*$", pipeline):
        raise ConfigError(f"{_shown(text)}: the pipeline must end in appsink name=sink")
    return Source(kind="gstreamer", location=pipeline, redacted=redact_address(text))


def _parse_rtsp(text: str, scheme: str, rest: str) -> Source:
    end = min((index for index in map(rest.find, "/?#") if index >= 0), default=len(rest))
    # The last @ ends the credentials, so that a password may contain one.
    userinfo, at, authority = rest[:end].rpartition("@")
    host = _host_and_port(authority)
    if host is None:
        raise ConfigError(f"{_shown(text)}: no valid host:port; write /, ? and # in a password as %2F, %3F and %23")
    if has_ambiguous_credentials(text):  # a password with a bare / leads here, too: rtsp://u:p@ss/w@host
        raise ConfigError(
            f"{_shown(text)}: it is not clear where the host starts; write /, ? and # in a password "
            "as %2F, %3F and %23, and an @ behind the host as %40"
        )
    user, colon, password = userinfo.partition(":")
    return Source(
        kind="rtsp",
        location=f"{scheme}://{host}{quote(rest[end:], safe=_PRINTABLE)}",
        redacted=redact_address(text),
        user=unquote(user) if at else None,
        password=unquote(password) if colon else None,
    )


def _host_and_port(authority: str) -> str | None:
    """Return a host and port as libraries resolve them: a name in ASCII, a zone without escape; None if impossible."""
    match = _AUTHORITY.fullmatch(authority)
    if match is None or not 0 < int(match["port"] or 1) <= 65535:
        return None
    port = f":{match['port']}" if match["port"] else ""
    try:
        if match["host"].startswith("["):
            host = re.sub("%(?:25)?", "%", match["host"])  # RFC 6874 escapes the % before a zone, resolvers do not
        else:
            in_ascii = match["host"].encode("idna").decode()
            host = match["host"] if match["host"].isascii() else in_ascii
        return f"{host}{port}" if urlsplit(f"rtsp://{authority}").hostname and "/" not in host else None
    except ValueError:  # an IPv6 address or host name that cannot exist
        return None
