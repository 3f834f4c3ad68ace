"""The HTTP server of the kiosk: its page, look-ups and teaching. With edge.kiosk.http the only user of starlette.

The server has one thread of its own; models and disk run in its thread pool. Engines can run on any thread
(edge.types.Engine), so a look-up does not wait for frames, and the frame path waits for one model run at most.
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
from edge.http_access import verify_tls
from edge.kiosk.http import (
    FORM,
    MAX_BODY_BYTES,
    AuthMiddleware,
    error_response,
    file_from_form,
    picture_response,
    query_number,
    read_body,
)
from edge.kiosk.kiosk import Kiosk
from edge.kiosk.responses import enrolment_json, lookup_json, state_json, taught_json
from edge.kiosk.taught_items import TaughtItems
from edge.kiosk.thumbnails import ItemThumbnails
from edge.recognition.recognise_image import decode_upload, recognise_image
from edge.telemetry.counters import Counters
from edge.telemetry.timing import Timings

log = logging.getLogger(__name__)

STATIC = Path(__file__).parent / "static"
_BODY_TIMEOUT_S = 15.0
_MAX_LOOKUPS = 4  # accepted at once, because each may hold a body; they are decoded and recognised one at a time
_POLL_S = 0.03
_STATE_WAIT_S = 10.0
_LIVE_WAIT_S = 2.0
_STATUS = {
    "empty": 400, "truncated": 400, "broken": 400, "left": 400, "slow": 408, "too_large": 413, "not_a_picture": 415,
    "busy": 503,
}  # fmt: skip
_FORM_OVERHEAD_BYTES = 65_536  # of a form, beside its file
_PICTURE_TYPES = {"image/jpeg", "image/png", "image/webp", "application/octet-stream", ""}


class _EnrolRequest(BaseModel):
    """The body of a request to teach an item."""

    label: str
    category: str | None = None
    negative: bool = False


class UploadWaker(Protocol):
    """The uploader, as the server uses it."""

    def wake(self) -> None:
        """Upload now: an item was taught."""


class KioskServer:
    """Serves one kiosk: `with KioskServer(...) as server`."""

    def __init__(
        self,
        config: KioskConfig,
        kiosk: Kiosk,
        taught_items: TaughtItems,
        thumbnails: ItemThumbnails,
        counters: Counters,
        uploader: UploadWaker | None = None,
    ) -> None:
        """Open the listening socket.

        Raises:
            ConfigError: the address cannot be listened on, or the certificate cannot be loaded.
        """
        certificate = key = None
        if config.tls is not None:
            verify_tls(config.tls)
            certificate, key = config.tls.certificate, config.tls.key
        self._config, self._kiosk, self._taught_items = config, kiosk, taught_items
        self._thumbnails, self._counters, self._uploader = thumbnails, counters, uploader
        self._lookups, self._one_lookup = 0, asyncio.Lock()
        self._stopping = False
        family = socket.AF_INET6 if ":" in config.host else socket.AF_INET
        # asyncio disables Nagle's delay of 40 ms only if the protocol is named
        self._socket = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            self._socket.bind((config.host, config.port))
            self._socket.listen()  # connections wait until the thread runs
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
            Route("/v1/ask", self._action(self._kiosk.ask), methods=["POST"]),
            Route("/v1/dismiss", self._action(self._kiosk.dismiss), methods=["POST"]),
            Route("/v1/teaching", self._action(self._kiosk.start_enrolment), methods=["POST"]),
            Route("/v1/teaching", self._action(self._kiosk.end_enrolment), methods=["DELETE"]),
            Route("/v1/teaching/looks/{number:int}", self._enrolment_picture),
            Route("/v1/taught", self._enrol, methods=["POST"]),
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
            body = await self._read_picture(request)
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

    async def _read_picture(self, request: Request) -> bytes:
        if self._lookups > _MAX_LOOKUPS:
            raise PictureError("busy", f"{_MAX_LOOKUPS} look-ups are running already; try again")
        max_bytes = MAX_BODY_BYTES
        if _form_type_of(request) is not None:
            max_bytes += _FORM_OVERHEAD_BYTES
        elif (content_type := _media_type_of(request)) not in _PICTURE_TYPES:
            supported = f"image/jpeg, image/png, image/webp or {FORM}"
            raise PictureError("not_a_picture", f"content type {content_type!r} is not supported; send {supported}")
        try:
            return await asyncio.wait_for(read_body(request, max_bytes), _BODY_TIMEOUT_S)
        except asyncio.TimeoutError:
            raise PictureError("slow", f"the body did not arrive within {_BODY_TIMEOUT_S:.0f} s") from None
        except ClientDisconnect:
            raise PictureError("left", "the client disconnected before the end of the body") from None

    def _recognise(self, body: bytes, form_type: str | None) -> dict[str, Any]:
        timings = Timings()
        with timings.stage("total"):
            with timings.stage("decode"):
                data = body if form_type is None else file_from_form(body, form_type, MAX_BODY_BYTES)
                image_rgb = decode_upload(data)
            models = self._kiosk.models
            decision = recognise_image(models, image_rgb, self._kiosk.min_object_px, timings)
        return lookup_json(decision, models, timings.stages_ms)

    def _refused_lookup(self, status: int, reason: str, message: str) -> Response:
        self._counters.add("lookups", result=reason)
        return error_response(status, reason, message)

    async def _state(self, request: Request) -> Response:
        after = query_number(request, "after")
        deadline = time.monotonic() + _STATE_WAIT_S
        while self._kiosk.state()[0] == after and time.monotonic() < deadline and not self._stopping:  # noqa: ASYNC110
            await asyncio.sleep(_POLL_S)
        return JSONResponse(state_json(*self._kiosk.state(), self._kiosk.models))

    async def _live(self, request: Request) -> Response:
        after = query_number(request, "after")
        deadline = time.monotonic() + _LIVE_WAIT_S
        while time.monotonic() < deadline and not self._stopping:
            number, jpeg = self._kiosk.live_picture()
            if number not in (0, after):
                headers = {"X-Number": str(number), "Cache-Control": "no-store"}
                return Response(jpeg, media_type="image/jpeg", headers=headers)
            await asyncio.sleep(_POLL_S)
        return Response(status_code=204)

    async def _picture(self, request: Request) -> Response:
        models, category = self._kiosk.models, request.query_params.get("category")
        categories = [name for name in models.stages.embedders if category in (None, name)]
        item = request.query_params.get("item", "")
        data = await run_in_threadpool(self._thumbnails.thumbnail, models.gallery_id, categories, item)
        return picture_response(data, f"there is no picture of item {item[:80]!r}")

    async def _enrolment_picture(self, request: Request) -> Response:
        number = request.path_params["number"]
        return picture_response(self._kiosk.enrolment_picture(number), f"there is no picture {number}")

    def _action(self, act: Callable[[], None]) -> Callable[[Request], Awaitable[Response]]:
        async def answer(_: Request) -> Response:
            act()
            return JSONResponse(state_json(*self._kiosk.state(), self._kiosk.models))

        return answer

    async def _enrol(self, request: Request) -> Response:
        try:
            order = _EnrolRequest.model_validate_json(await read_body(request, 10_000))
            enrolment = await run_in_threadpool(
                lambda: self._kiosk.enrol(order.label, order.category, negative=order.negative)
            )
        except (ValidationError, PictureError):
            return self._not_taught('invalid body; send {"label": "...", "category": "..." or null}')
        except FinesightError as error:
            return self._not_taught(str(error))
        if self._uploader is not None:
            self._uploader.wake()
        return JSONResponse(enrolment_json(enrolment), status_code=201)

    def _not_taught(self, message: str) -> Response:
        self._counters.add("kiosk_refused", reason="not_taught")
        return error_response(422, "not_taught", message)

    async def _list_taught(self, _: Request) -> Response:
        retired = self._taught_items.retired
        items = self._kiosk.store.items()
        return JSONResponse({"taught": [taught_json(item, retired.get(item.item_id)) for item in items]})

    async def _forget(self, request: Request) -> Response:
        try:
            await run_in_threadpool(self._kiosk.forget, request.path_params["item"])
        except FinesightError as error:
            self._counters.add("kiosk_refused", reason="not_found")
            return error_response(404, "not_found", str(error))
        return Response(status_code=204)


def _media_type_of(request: Request) -> str:
    return request.headers.get("content-type", "").partition(";")[0].strip().lower()


def _form_type_of(request: Request) -> str | None:
    """Return the complete content type of a form; None if the body is the picture itself."""
    return request.headers["content-type"] if _media_type_of(request) == FORM else None
