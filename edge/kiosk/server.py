"""The HTTP server of the kiosk: its page, look-ups and teaching. With edge.kiosk.http the only user of starlette.

The server has one thread of its own; look-ups run on the threads of their queue, the disk in a thread pool. Engines can
run on any thread (edge.types.Engine), so a look-up does not wait for frames. Where an engine takes one run at a time
(OpenVINO, a GPU), the frame path waits for one run at most; on the CPU by ONNX Runtime, for none.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any, Protocol

from pydantic import BaseModel, ValidationError
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, Response
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles

from edge.config.schema import KioskConfig
from edge.errors import BusyError, ConfigError, FinesightError, PictureError
from edge.http_server.access import own_names
from edge.http_server.uvicorn_server import UvicornServer
from edge.kiosk.form import file_from_form
from edge.kiosk.http import (
    FORM,
    MAX_BODY_BYTES,
    AccessMiddleware,
    Uploads,
    content_length,
    error_response,
    form_type_of,
    left_of,
    media_type_of,
    picture_response,
    query_number,
)
from edge.kiosk.kiosk import Kiosk
from edge.kiosk.lookup_queue import LookupQueue
from edge.kiosk.responses import enrolment_json, lookup_json, state_json, taught_json
from edge.kiosk.thumbnails import ItemThumbnails
from edge.recognition.recognise_image import decode_upload, recognise_picture, reduction_for
from edge.telemetry.counters import Counters
from edge.telemetry.timing import StageTimer, Timings

log = logging.getLogger(__name__)

STATIC = Path(__file__).parent / "static"
_BUSY_S = 120.0  # the longest time to answer a request
_POLL_S = 0.03
_STATE_WAIT_S = 10.0
_LIVE_WAIT_S = 2.0
_STATUS = {
    "empty": 400, "truncated": 400, "broken": 400, "left": 400, "slow": 408, "too_large": 413, "not_a_picture": 415,
    "busy": 503,
}  # fmt: skip
_MAX_ENROL_BYTES = 10_000
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
        thumbnails: ItemThumbnails,
        counters: Counters,
        uploader: UploadWaker | None = None,
        timer: StageTimer | None = None,
    ) -> None:
        """Open the listening socket.

        Args:
            config: address, token and certificate.
            kiosk: of the camera.
            thumbnails: of all items.
            counters: of requests.
            uploader: is woken when an item was taught.
            timer: of the stages of look-ups; None: one of its own.

        Raises:
            ConfigError: the address cannot be listened on, or the certificate cannot be loaded.
        """
        self._config, self._kiosk = config, kiosk
        self._thumbnails, self._counters, self._uploader = thumbnails, counters, uploader
        self._uploads, self._timer = Uploads(), timer or StageTimer()
        try:
            self._server = UvicornServer("kiosk", config.host, config.port, config.tls, counters, busy_s=_BUSY_S)
        except ConfigError as error:
            raise ConfigError(f"kiosk: {error}") from error
        self.port = self._server.port
        names = own_names(config.host, config.host_names)
        self._guarded = AccessMiddleware(self._app(), self._server.listener, names, config.token, counters)

    def __enter__(self) -> KioskServer:  # noqa: PYI034  Self is not in Python 3.10
        self._server.start(self._guarded, self._lookups)
        log.info("kiosk: %s/", self._server.url)
        return self

    def __exit__(self, *_: object) -> None:
        self._server.stop()

    @contextlib.contextmanager
    def _lookups(self) -> Iterator[None]:
        with LookupQueue(self._counters, self._timer) as self._queue:  # it belongs to one event loop
            yield

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
        try:
            body = await self._read_picture(request)
            form_type = form_type_of(request)
            answer = await self._queue.run(lambda: self._recognise(body, form_type), len(body), left_of(request))
        except PictureError as error:
            wait = {"Retry-After": str(error.retry_after_s)} if isinstance(error, BusyError) else None
            return self._refused_lookup(_STATUS[error.reason], error.reason, str(error), wait)
        except FinesightError as error:
            log.exception("kiosk: a look-up failed")
            return self._refused_lookup(500, "failed", str(error))
        self._counters.add("lookups", result=answer["reason"] or "match")
        return JSONResponse(answer)

    async def _read_picture(self, request: Request) -> bytes:
        self._queue.refuse_if_full(content_length(request))
        max_bytes = MAX_BODY_BYTES
        if form_type_of(request) is not None:
            max_bytes += _FORM_OVERHEAD_BYTES
        elif (content_type := media_type_of(request)) not in _PICTURE_TYPES:
            supported = f"image/jpeg, image/png, image/webp or {FORM}"
            raise PictureError("not_a_picture", f"content type {content_type!r} is not supported; send {supported}")
        return await self._uploads.read(request, max_bytes)

    def _recognise(self, body: bytes, form_type: str | None) -> dict[str, Any]:
        timings = Timings()
        with timings.stage("total"):
            models = self._kiosk.models
            with timings.stage("decode"):
                data = body if form_type is None else file_from_form(body, form_type, MAX_BODY_BYTES)
                picture = decode_upload(data, reduction_for(models))
            decision = recognise_picture(models, picture, self._kiosk.min_object_px, timings)
        return lookup_json(decision, models, timings.stages_ms)

    def _refused_lookup(
        self, status: int, reason: str, message: str, headers: dict[str, str] | None = None
    ) -> Response:
        self._counters.add("lookups", result=reason)
        return error_response(status, reason, message, headers)

    async def _state(self, request: Request) -> Response:
        after = query_number(request, "after")
        deadline = time.monotonic() + _STATE_WAIT_S
        while self._kiosk.state()[0] == after and time.monotonic() < deadline and not self._server.is_stopping:  # noqa: ASYNC110
            await asyncio.sleep(_POLL_S)
        return JSONResponse(state_json(*self._kiosk.state(), self._kiosk.models))

    async def _live(self, request: Request) -> Response:
        after = query_number(request, "after")
        deadline = time.monotonic() + _LIVE_WAIT_S
        while time.monotonic() < deadline and not self._server.is_stopping:
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
            order = _EnrolRequest.model_validate_json(await self._uploads.read(request, _MAX_ENROL_BYTES))
            enrolment = await run_in_threadpool(
                lambda: self._kiosk.enrol(order.label, order.category, negative=order.negative)
            )
        except PictureError as error:
            self._counters.add("kiosk_refused", reason=error.reason)
            return error_response(_STATUS[error.reason], error.reason, str(error))
        except ValidationError:
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
        retired = self._kiosk.models.taught_retired
        items = self._kiosk.store.items()
        return JSONResponse({"taught": [taught_json(item, retired.get(item.item_id)) for item in items]})

    async def _forget(self, request: Request) -> Response:
        try:
            await run_in_threadpool(self._kiosk.forget, request.path_params["item"])
        except FinesightError as error:
            self._counters.add("kiosk_refused", reason="not_found")
            return error_response(404, "not_found", str(error))
        return Response(status_code=204)
