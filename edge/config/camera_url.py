"""A camera's address: parsed once, and printed without its secrets."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Literal
from urllib.parse import parse_qsl, quote, unquote, urlsplit

from edge.errors import ConfigError

Kind = Literal["rtsp", "v4l2", "file", "csi", "folder", "gstreamer"]

_SCHEMES = "rtsp://, rtsps://, v4l2://, csi://, file://, folder:// or gst:"
_KEYS = {
    "v4l2": {"width", "height", "fps"},
    "csi": {"width", "height", "fps"},
    "file": {"loop"},
    "folder": {"fps", "loop"},
}
# Cameras of many makers carry the password in the path or query instead: rtsp://host/user=admin&password=x&channel=1
_SECRET_PAIR = re.compile(
    r"""(?ix) \b (user(?:name|-id)? | pass(?:word|wd)? | pwd | user-pw | proxy-pw | token | secret | key | auth)
    = ("[^"]*" | '[^']*' | [^&\s!/?]*)"""
)
_USERINFO = re.compile(r"""(?i)\b([a-z][a-z0-9+.-]*)://[^\s"'/?#]*@""")
_AUTHORITY = re.compile(r"(?P<host>\[[0-9a-fA-F:.]+\]|[^:\[\]\s]+)(?::(?P<port>\d{1,5}))?")


@dataclass(frozen=True, slots=True)
class Source:
    """Where a camera's pictures come from. Prints as `redacted`."""

    kind: Kind
    location: str = field(repr=False)  # URL without credentials, path, device, sensor or pipeline
    redacted: str  # what logs, errors and events may say
    user: str | None = field(default=None, repr=False)
    password: str | None = field(default=None, repr=False)
    fps: float | None = None  # asked of a camera, or the pace of a folder
    width: int | None = None  # asked of a camera, pixels
    height: int | None = None
    loop: bool = False

    def __str__(self) -> str:
        """The form that may be printed."""
        return self.redacted

    @property
    def recorded(self) -> bool:
        """Whether the pictures exist already: a file or a folder, not a camera."""
        return self.kind in {"file", "folder"}

    @property
    def url(self) -> str:
        """The RTSP URL with its credentials, percent-encoded. Not for printing."""
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
        """What a library said about this source, without the credentials it may quote."""
        for secret in (self.url, self.password, quote(self.password or "", safe="")):
            if secret and secret != self.location:
                text = text.replace(secret, "***")
        return redact(text)


def redact(text: str) -> str:
    """Hide credentials wherever URLs and pipelines carry them."""
    return _SECRET_PAIR.sub(r"\1=***", _USERINFO.sub(r"\1://***@", text))


def parse_source(text: str) -> Source:
    """Read a camera's address.

    Args:
        text: `rtsp://user:password@host/path`, `v4l2:///dev/video0?width=1280&height=720&fps=30`, `csi://0`,
            `file:///x.mp4?loop=1`, `folder:///photos/*.jpg?fps=2&loop=1`, or `gst:` and a pipeline that ends in
            `appsink name=sink`. A file or folder without the third slash is relative to the working directory.

    Raises:
        ConfigError: no such scheme, a key it does not have, or a value that is none.
    """
    if text.startswith("gst:"):
        return _parse_pipeline(text)
    scheme, mark, rest = text.partition("://")
    if mark and scheme in {"rtsp", "rtsps"}:
        return _parse_rtsp(text, scheme, rest)
    if not mark or scheme not in _KEYS:
        raise ConfigError(f"source {redact(text)!r}: found no known scheme, expected {_SCHEMES}")
    path, _, query = rest.partition("?")
    location = unquote(path)
    if not location:
        raise ConfigError(f"source {text!r}: found nothing after ://, expected a path or number")
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
            raise ConfigError(f"source {text!r}: found key {key!r}, expected one of {sorted(_KEYS[scheme])}")
        try:
            number = float(value)
        except ValueError:
            number = -1.0
        if not 0 <= number < 1e5 or (number == 0 and key != "loop"):
            raise ConfigError(f"source {text!r}: found {key}={value!r}, expected a number above 0")
        pairs[key] = number
    return pairs


def _parse_pipeline(text: str) -> Source:
    pipeline = text.removeprefix("gst:").strip()
    if not re.search(r"\bappsink\b[^!]*\bname=sink\b[^!]*$", pipeline):
        raise ConfigError(
            f"source {redact(text)!r}: found another end, expected the pipeline to end in appsink name=sink"
        )
    return Source(kind="gstreamer", location=pipeline, redacted=redact(text))


def _parse_rtsp(text: str, scheme: str, rest: str) -> Source:
    cut = min((at for at in map(rest.find, "/?#") if at >= 0), default=len(rest))
    # The last @ ends the credentials, so that a password may hold one.
    userinfo, at, authority = rest[:cut].rpartition("@")
    host = _AUTHORITY.fullmatch(authority)
    if host is None or int(host["port"] or 0) > 65535:
        # A password with a bare / lands here; everything up to its @ may be a secret.
        hidden = f"{scheme}://***@{rest.rpartition('@')[2]}" if "@" in rest else text
        raise ConfigError(f"source {redact(hidden)!r}: found no host:port, expected /, ? and # of a password as %XX")
    user, colon, password = userinfo.partition(":")
    return Source(
        kind="rtsp",
        location=f"{scheme}://{authority}{rest[cut:]}",
        redacted=redact(f"{scheme}://{'***@' if at else ''}{authority}{rest[cut:]}"),
        user=unquote(user) if at else None,
        password=unquote(password) if colon else None,
    )
