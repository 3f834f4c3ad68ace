"""Serves the console's own scripts, styles and icons."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from starlette.middleware.gzip import GZipMiddleware
from starlette.staticfiles import StaticFiles

from console.web.responses import GZIP_BYTES

STATIC = Path(__file__).parents[1] / "static"


def static_files(headers: Mapping[str, str]) -> Any:
    """Return the application of files that never change while the console runs; browsers ask whether they did."""
    app = GZipMiddleware(StaticFiles(directory=STATIC), GZIP_BYTES, 5)

    async def answer(scope: Any, receive: Any, send: Any) -> None:
        async def send_with_headers(message: Any) -> None:
            if message["type"] == "http.response.start":
                more = {**headers, "Cache-Control": "no-cache"}
                encoded = [(name.lower().encode(), value.encode()) for name, value in more.items()]
                message = {**message, "headers": [*message["headers"], *encoded]}
            await send(message)

        await app(scope, receive, send_with_headers)

    return answer
