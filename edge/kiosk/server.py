"""The kiosk's page and look-ups over HTTP. With edge.kiosk.http the door to starlette and uvicorn.

One thread of its own; what takes longer than a moment (models, disk) runs in its pool. Engines may be run from any
thread (edge.types.Engine), so a look-up waits for no frame, and the frame path for one model's run at most.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import threading
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, Protocol

import uvicorn
from pydantic import BaseModel, ValidationError
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import ClientDisconnect, Request
from starlette.responses import FileResponse, JSONResponse, Response
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles

from edge.config.schema import KioskConfig
from edge.errors import ConfigError, FinesightError, PictureError
from edge.kiosk.auth import verify_tls
from edge.kiosk.http import (
    FORM,
    MAX_BODY_BYTES,
    AuthMiddleware,
    body_of,
    error_answer,
    file_of,
    number_of,
    picture_answer,
)
from edge.kiosk.kiosk import Kiosk
from edge.kiosk.responses import lesson_answer, lookup_answer, state_answer, taught_answer
from edge.kiosk.taught_items import TaughtItems
from edge.kiosk.thumbnails import ItemThumbnails
from edge.recognition.recognise_image import decode_upload, recognise_image
from edge.telemetry.metrics import Counters
from edge.telemetry.timing import Timings

log = logging.getLogger(__name__)

STATIC = Path(__file__).parent / "static"
_BODY_TIMEOUT_S = 15.0
_LOOKUPS_AT_ONCE = 4  # admitted; each may hold a body. One is decoded and recognised at a time
_POLL_S = 0.03
_STATE_PATIENCE_S = 10.0
_LIVE_PATIENCE_S = 2.0
_STATUS = {
    "empty": 400, "truncated": 400, "broken": 400, "left": 400, "slow": 408, "too_large": 413, "not_a_picture": 415,
    "busy": 503,
}  # fmt: skip
_FORM_BYTES = 65_536  # of a form, beside its file
_PICTURE_TYPES = {"image/jpeg", "image/png", "image/webp", "application/octet-stream", ""}


class _Asked(BaseModel):
    """What the page sends to teach."""

    label: str
    category: str | None = None
    negative: bool = False


class UploadWaker(Protocol):
    """Who is told that something was taught."""

    def wake(self) -> None:
        """There is something to upload."""


class KioskServer:
    """Serves one kiosk: `with KioskServer(...) as server`."""

    def __init__(
        self,
        config: KioskConfig,
        kiosk: Kiosk,
        overlay: TaughtItems,
        pictures: ItemThumbnails,
        counters: Counters,
        uploader: UploadWaker | None = None,
    ) -> None:
        """Listen.

        Raises:
            ConfigError: the address cannot be listened on, or the certificate not be shown.
        """
        certificate = key = None
        if config.tls is not None:
            verify_tls(config.tls)
            certificate, key = config.tls.certificate, config.tls.key
        self._config, self._kiosk, self._overlay = config, kiosk, overlay
        self._pictures, self._counters, self._uploader = pictures, counters, uploader
        self._lookups, self._one_lookup = 0, asyncio.Lock()
        self._stopping = False
        family = socket.AF_INET6 if ":" in config.host else socket.AF_INET
        # asyncio turns Nagle's wait of 40 ms off only where the protocol is named
        self._socket = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            self._socket.bind((config.host, config.port))
            self._socket.listen()  # who connects from here on is answered once the thread runs
        except OSError as error:
            self._socket.close()
            raise ConfigError(f"kiosk: cannot listen on {config.host}:{config.port}: {error.strerror}") from error
        self.port: int = self._socket.getsockname()[1]
        app = AuthMiddleware(self._app(), config.token, counters)
        options = uvicorn.Config(
            app, loop="asyncio", http="h11", ws="none", lifespan="off", log_config=None, access_log=False,
            server_header=False, proxy_headers=False, timeout_graceful_shutdown=1, limit_concurrency=64,
            ssl_certfile=certificate, ssl_keyfile=key,
        )  # fmt: skip
        self._uvicorn = uvicorn.Server(options)
        self._thread = threading.Thread(
            target=self._uvicorn.run, kwargs={"sockets": [self._socket]}, name="kiosk-http", daemon=True
        )

    def __enter__(self) -> KioskServer:  # noqa: PYI034  Self is not in Python 3.10
        self._thread.start()
        scheme = "https" if self._config.tls else "http"
        log.info("kiosk: %s://%s:%d/", scheme, self._config.host, self.port)
        return self

    def __exit__(self, *_: object) -> None:
        self._stopping = self._uvicorn.should_exit = True
        self._thread.join()
        self._socket.close()

    def _app(self) -> Starlette:
        routes: list[Route | Mount] = [
            Route("/", self._page),
            Route("/openapi.json", lambda _: FileResponse(STATIC / "openapi.json")),
            Route("/v1/lookup", self._lookup, methods=["POST"]),
            Route("/v1/state", self._state),
            Route("/v1/live", self._live),
            Route("/v1/picture", self._picture),
            Route("/v1/ask", self._touch(self._kiosk.ask), methods=["POST"]),
            Route("/v1/dismiss", self._touch(self._kiosk.dismiss), methods=["POST"]),
            Route("/v1/teaching", self._touch(self._kiosk.begin_teaching), methods=["POST"]),
            Route("/v1/teaching", self._touch(self._kiosk.end_teaching), methods=["DELETE"]),
            Route("/v1/teaching/looks/{number:int}", self._look),
            Route("/v1/taught", self._teach, methods=["POST"]),
            Route("/v1/taught", self._list_taught),
            Route("/v1/taught/{item}", self._forget, methods=["DELETE"]),
            Mount("/static", StaticFiles(directory=STATIC)),
        ]
        return Starlette(routes=routes)

    async def _page(self, _: Request) -> Response:
        return FileResponse(STATIC / "kiosk.html", headers={"Cache-Control": "no-cache"})

    async def _lookup(self, request: Request) -> Response:
        self._lookups += 1
        try:
            body = await self._picture_of(request)
            async with self._one_lookup:
                answer = await run_in_threadpool(self._recognise, body, _form_type_of(request))
        except PictureError as error:
            return self._refused_lookup(_STATUS[error.reason], error.reason, str(error))
        except FinesightError as error:
            log.exception("kiosk: a look-up failed")
            return self._refused_lookup(500, "failed", str(error))
        finally:
            self._lookups -= 1
        self._counters.add("lookups", result=answer["reason"] or "match")
        return JSONResponse(answer)

    async def _picture_of(self, request: Request) -> bytes:
        if self._lookups > _LOOKUPS_AT_ONCE:
            raise PictureError("busy", f"found {_LOOKUPS_AT_ONCE} look-ups under way, expected fewer")
        most = MAX_BODY_BYTES
        if _form_type_of(request) is not None:
            most += _FORM_BYTES
        elif (content_type := _media_type_of(request)) not in _PICTURE_TYPES:
            expected = f"image/jpeg, image/png, image/webp or {FORM}"
            raise PictureError("not_a_picture", f"found content type {content_type!r}, expected {expected}")
        try:
            return await asyncio.wait_for(body_of(request, most), _BODY_TIMEOUT_S)
        except asyncio.TimeoutError:
            message = f"found no end of the body, expected it within {_BODY_TIMEOUT_S:.0f} s"
            raise PictureError("slow", message) from None
        except ClientDisconnect:
            raise PictureError("left", "found no end of the body, expected it") from None

    def _recognise(self, body: bytes, form_type: str | None) -> dict[str, Any]:
        timings = Timings()
        with timings.stage("total"):
            with timings.stage("decode"):
                data = body if form_type is None else file_of(body, form_type, MAX_BODY_BYTES)
                image_rgb = decode_upload(data)
            models = self._kiosk.models
            decision = recognise_image(models, image_rgb, self._kiosk.min_object_px, timings)
        return lookup_answer(decision, models, timings.stages_ms)

    def _refused_lookup(self, status: int, reason: str, message: str) -> Response:
        self._counters.add("lookups", result=reason)
        return error_answer(status, reason, message)

    async def _state(self, request: Request) -> Response:
        after = number_of(request, "after")
        deadline = time.monotonic() + _STATE_PATIENCE_S
        while self._kiosk.state()[0] == after and time.monotonic() < deadline and not self._stopping:  # noqa: ASYNC110
            await asyncio.sleep(_POLL_S)
        return JSONResponse(state_answer(*self._kiosk.state(), self._kiosk.models))

    async def _live(self, request: Request) -> Response:
        after = number_of(request, "after")
        deadline = time.monotonic() + _LIVE_PATIENCE_S
        while time.monotonic() < deadline and not self._stopping:
            number, jpeg = self._kiosk.live()
            if number not in (0, after):
                headers = {"X-Number": str(number), "Cache-Control": "no-store"}
                return Response(jpeg, media_type="image/jpeg", headers=headers)
            await asyncio.sleep(_POLL_S)
        return Response(status_code=204)

    async def _picture(self, request: Request) -> Response:
        models, category = self._kiosk.models, request.query_params.get("category")
        categories = [name for name in models.stages.embedders if category in (None, name)]
        item = request.query_params.get("item", "")
        data = await run_in_threadpool(self._pictures.picture, models.gallery_id, categories, item)
        return picture_answer(data, f"found no picture of item {item[:80]!r}")

    async def _look(self, request: Request) -> Response:
        number = request.path_params["number"]
        return picture_answer(self._kiosk.look(number), f"found no look {number}")

    def _touch(self, act: Callable[[], None]) -> Callable[[Request], Awaitable[Response]]:
        async def answer(_: Request) -> Response:
            act()
            return JSONResponse(state_answer(*self._kiosk.state(), self._kiosk.models))

        return answer

    async def _teach(self, request: Request) -> Response:
        try:
            asked = _Asked.model_validate_json(await body_of(request, 10_000))
            lesson = await run_in_threadpool(
                lambda: self._kiosk.teach(asked.label, asked.category, negative=asked.negative)
            )
        except (ValidationError, PictureError):
            return self._refused_lesson('found another body, expected {"label": "...", "category": "..." or null}')
        except FinesightError as error:
            return self._refused_lesson(str(error))
        if self._uploader is not None:
            self._uploader.wake()
        return JSONResponse(lesson_answer(lesson), status_code=201)

    def _refused_lesson(self, message: str) -> Response:
        self._counters.add("kiosk_refused", reason="not_taught")
        return error_answer(422, "not_taught", message)

    async def _list_taught(self, _: Request) -> Response:
        retired = self._overlay.retired
        items = self._kiosk.store.items()
        return JSONResponse({"taught": [taught_answer(item, retired.get(item.item_id)) for item in items]})

    async def _forget(self, request: Request) -> Response:
        try:
            await run_in_threadpool(self._kiosk.forget, request.path_params["item"])
        except FinesightError as error:
            self._counters.add("kiosk_refused", reason="not_found")
            return error_answer(404, "not_found", str(error))
        return Response(status_code=204)


def _media_type_of(request: Request) -> str:
    return request.headers.get("content-type", "").partition(";")[0].strip().lower()


def _form_type_of(request: Request) -> str | None:
    """The whole content type of a form; None when the body is the picture itself."""
    return request.headers["content-type"] if _media_type_of(request) == FORM else None
