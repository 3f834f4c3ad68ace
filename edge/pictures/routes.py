"""The health server's answers for pictures: `/snapshot/<camera>.jpg`, the page `/live` and MJPEG at `/live/<camera>`.

With a token, every path here needs it (`edge.http_server.access`). The health server has checked the host before.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import parse_qs

from edge.http_server.access import cookie_value, refusal_reason, token_matches
from edge.pictures.live_view import LiveView
from edge.pictures.snapshots import Snapshots
from edge.telemetry.counters import Counters

STATIC = Path(__file__).parent / "static"
COOKIE = "finesight_live"  # another name than the kiosk's: a browser sends cookies to every port of a host
_BOUNDARY = "finesight"
_WAIT_S = 5.0  # without a frame for this long, a viewer gets a grey picture, which also shows whether it is still there
_FILES = {"/live": ("live.html", "text/html; charset=utf-8"), "/live.js": ("live.js", "text/javascript; charset=utf-8"),
          "/live.css": ("live.css", "text/css; charset=utf-8")}  # fmt: skip
_HEADERS = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'self'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
}
_COOKIE_RULES = "Max-Age=31536000; Path=/; HttpOnly; SameSite=Lax"


class MjpegStream:
    """The parts of an MJPEG stream, for one viewer; `close` counts the viewer out."""

    def __init__(self, live: LiveView, camera: str) -> None:
        """Follow a camera that `live.enter` has counted a viewer of."""
        self._live, self._camera, self._number = live, camera, 0

    def __iter__(self) -> Iterator[bytes]:
        while (picture := self._live.next_picture(self._camera, self._number, _WAIT_S)) is not None:
            self._number = picture.number
            head = f"--{_BOUNDARY}\r\nContent-Type: image/jpeg\r\nContent-Length: {len(picture.jpeg)}\r\n\r\n"
            yield head.encode() + picture.jpeg + b"\r\n"

    def close(self) -> None:
        """Count the viewer out."""
        self._live.leave(self._camera)


@dataclass(frozen=True, slots=True)
class Answer:
    """An HTTP response; a body in parts goes on until the client leaves."""

    status: int
    content_type: str
    body: bytes | MjpegStream
    headers: Mapping[str, str] = field(default_factory=dict)


class PictureRoutes:
    """Answers requests for pictures."""

    def __init__(
        self,
        cameras: Callable[[], Collection[str]],
        snapshots: Snapshots | None,
        live: LiveView | None,
        token: str | None,
        counters: Counters,
    ) -> None:
        self._cameras, self._snapshots, self._live = cameras, snapshots, live
        self._token, self._counters = token, counters

    def answer(self, path: str, query: str, headers: Mapping[str, str]) -> Answer | None:
        """Return the response to a GET request; None if the path is not one of pictures.

        Args:
            path: without the query.
            query: what follows the question mark.
            headers: by lower-case name.
        """
        if not path.startswith(("/snapshot/", "/live")):
            return None
        if path == "/live" and (login := self._login(query)):
            return login
        cookie = _cookie_of(headers.get("cookie", ""))
        reason = refusal_reason(headers, cookie, changes=False, token=self._token)
        if reason is not None:
            self._counters.add("pictures_refused", reason=reason)
            advice = "no valid token; send Authorization: Bearer <token>, or open /live?token=<token> once"
            return _error(401, advice)
        if path.startswith("/snapshot/"):
            return self._snapshot(path.removeprefix("/snapshot/").removesuffix(".jpg"))
        if self._live is None:
            return _error(404, "the live view is off; add `live: {}` to the configuration")
        return self._live_answer(self._live, path)

    def _login(self, query: str) -> Answer | None:
        """Return a redirection that sets the cookie; None if the query holds no valid token."""
        offered = parse_qs(query).get("token", [""])[0]
        if self._token is None or not token_matches(offered, self._token):
            return None
        cookie = f"{COOKIE}={cookie_value(self._token)}; {_COOKIE_RULES}"
        return Answer(303, "text/plain", b"", {"Location": "/live", "Set-Cookie": cookie})

    def _live_answer(self, live: LiveView, path: str) -> Answer:
        if path in _FILES:
            file, content_type = _FILES[path]
            return Answer(200, content_type, (STATIC / file).read_bytes(), _HEADERS)
        if path == "/live.json":
            return _json(200, {"cameras": list(self._cameras())})
        name = path.removeprefix("/live/")
        camera = name.removesuffix(".json")
        if camera not in self._cameras():
            return _error(404, f"there is no camera {camera[:80]!r}; /live.json lists them")
        if name != camera:
            return _json(200, {"names": live.names(camera)})
        if not live.enter(camera):
            return _error(503, "too many viewers; close one, or raise live.max_clients")
        return Answer(200, f"multipart/x-mixed-replace; boundary={_BOUNDARY}", MjpegStream(live, camera), _HEADERS)

    def _snapshot(self, camera: str) -> Answer:
        if self._snapshots is None:
            return _error(404, "snapshots are off; add `snapshots: {}` to the configuration")
        newest = self._snapshots.newest(camera) if camera in self._cameras() else None
        if newest is None:
            return _error(404, f"there is no snapshot of camera {camera[:80]!r} yet")
        return Answer(200, "image/jpeg", newest.jpeg, {**_HEADERS, "X-Event-Id": newest.event_id})


def _cookie_of(header: str) -> str:
    """Return the value of our cookie in a Cookie header; empty without it."""
    for pair in header.split(";"):
        name, _, value = pair.strip().partition("=")
        if name == COOKIE:
            return value
    return ""


def _json(status: int, body: Mapping[str, object]) -> Answer:
    text = json.dumps(body, ensure_ascii=False).encode("utf-8", errors="replace")
    return Answer(status, "application/json", text + b"\n", _HEADERS)


def _error(status: int, message: str) -> Answer:
    return _json(status, {"error": message})
