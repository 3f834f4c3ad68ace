"""Parse the address of a camera, and print it without its secrets."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Literal
from urllib.parse import parse_qsl, quote, unquote, urlsplit

from edge.errors import ConfigError

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
# Many makers put the password into the path or query instead: rtsp://host/user=admin&password=x&channel=1
_SECRET_PAIR = re.compile(
    r"""(?ix) \b (user(?:name|-id)? | pass(?:word|wd)? | pwd | user-pw | proxy-pw | token | secret | key | auth)
    = ("[^"]*" | '[^']*' | [^&\s!/?]*)"""
)
_USERINFO = re.compile(r"""(?i)\b([a-z][a-z0-9+.-]*)://[^\s"'/?#]*@""")
_AUTHORITY = re.compile(r"(?P<host>\[[0-9a-fA-F:.]+\]|[^:\[\]\s]+)(?::(?P<port>[0-9]{1,5}))?")


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
        for secret in (self.url, self.password, quote(self.password or "", safe="")):
            if secret and secret != self.location:
                text = text.replace(secret, "***")
        return redact(text)


def redact(text: str) -> str:
    """Return a text with the credentials in URLs and pipelines replaced by ***."""
    return _SECRET_PAIR.sub(r"\1=***", _USERINFO.sub(r"\1://***@", text))


def parse_source(text: str) -> Source:
    """Parse a camera's address.

    Args:
        text: `rtsp://user:password@host/path`, `v4l2:///dev/video0?width=1280&height=720&fps=30`, `csi://0`,
            `file:///x.mp4?loop=1`, `folder:///photos/*.jpg?fps=2&loop=1`, or `gst:` and a pipeline that ends in
            `appsink name=sink`. A file or folder without the third slash is relative to the working directory.

    Raises:
        ConfigError: the scheme or a key is unknown, or a value is invalid.
    """
    if text.startswith("gst:"):
        return _parse_pipeline(text)
    scheme, mark, rest = text.partition("://")
    if mark and scheme in {"rtsp", "rtsps"}:
        return _parse_rtsp(text, scheme, rest)
    if not mark or scheme not in _KEYS:
        raise ConfigError(f"source {redact(text)!r}: no known scheme; use {_SCHEMES}")
    path, _, query = rest.partition("?")
    location = unquote(path)
    if not location:
        raise ConfigError(f"source {text!r}: nothing follows ://; give a path or number")
    if scheme == "v4l2" and location.isdigit():
        location = f"/dev/video{location}"
    pairs = _parse_query(text, scheme, query)
    return Source(
        kind=scheme,  # type: ignore[arg-type]  # the keys of _KEYS are kinds
        location=location,
        redacted=redact(text),
        fps=pairs.get("fps"),
        width=int(pairs["width"]) if "width" in pairs else None,
        height=int(pairs["height"]) if "height" in pairs else None,
        loop=bool(pairs.get("loop", 0)),
    )


def _parse_query(text: str, scheme: str, query: str) -> dict[str, float]:
    pairs: dict[str, float] = {}
    for key, value in parse_qsl(query, keep_blank_values=True):
        if key not in _KEYS[scheme]:
            raise ConfigError(f"source {text!r}: unknown key {key!r}; use one of {sorted(_KEYS[scheme])}")
        if key in pairs:
            raise ConfigError(f"source {text!r}: key {key!r} appears twice; remove one")
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
        raise ConfigError(f"source {text!r}: {key}={value!r} is not {allowed}")
    return number


def _parse_pipeline(text: str) -> Source:
    pipeline = text.removeprefix("gst:").strip()
    if not re.search(r"\bappsink\b[^!]*\bname=sink\b[^!]*$", pipeline):
        raise ConfigError(f"source {redact(text)!r}: the pipeline must end in appsink name=sink")
    return Source(kind="gstreamer", location=pipeline, redacted=redact(text))


def _parse_rtsp(text: str, scheme: str, rest: str) -> Source:
    end = min((index for index in map(rest.find, "/?#") if index >= 0), default=len(rest))
    # The last @ ends the credentials, so that a password may contain one.
    userinfo, at, authority = rest[:end].rpartition("@")
    if not _is_host_and_port(authority):
        # A password with a bare / leads here; everything up to its @ may be a secret.
        hidden = f"{scheme}://***@{rest.rpartition('@')[2]}" if "@" in rest else text
        raise ConfigError(f"source {redact(hidden)!r}: no valid host:port; write /, ? and # in a password as %XX")
    user, colon, password = userinfo.partition(":")
    return Source(
        kind="rtsp",
        location=f"{scheme}://{authority}{rest[end:]}",
        redacted=redact(f"{scheme}://{'***@' if at else ''}{authority}{rest[end:]}"),
        user=unquote(user) if at else None,
        password=unquote(password) if colon else None,
    )


def _is_host_and_port(authority: str) -> bool:
    match = _AUTHORITY.fullmatch(authority)
    if match is None or int(match["port"] or 0) > 65535:
        return False
    try:
        return bool(urlsplit(f"rtsp://{authority}").hostname)
    except ValueError:  # an IPv6 address or host name that cannot exist
        return False
