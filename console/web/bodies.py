"""Reads the bodies of requests: bounded in size and in time, whatever their headers say.

Rules this module keeps:
1. A body must arrive at a pace: its sender holds a connection and a folder for that long only.
2. No value that reaches a handler holds a NUL character, half a surrogate pair, or a number beyond 2^53 or infinite.
"""

from __future__ import annotations

import asyncio
import math
import time
import types
import typing
from collections.abc import AsyncIterator, Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl

from pydantic import BaseModel, ValidationError
from starlette.concurrency import run_in_threadpool
from starlette.requests import ClientDisconnect, Request

from console.web.form import FormWriter, check_free_space
from console.web.routing import UploadedFile
from edge.errors import ConsoleError, first_validation_error
from edge.strict_json import parse_json

MAX_BODY_BYTES = 2_000_000  # of JSON and of a form without files
LARGEST_NUMBER = 2**53
_MAX_PAIRS = 5000  # of a form without files, or of a query
_PIECE_BYTES = 1 << 20  # of a form that is written at once
_FORM = "application/x-www-form-urlencoded"


@dataclass(frozen=True, slots=True)
class Pace:
    """How slowly a body may arrive."""

    grace_s: float = 30.0
    min_bytes_per_s: float = 16_000.0  # after the grace
    idle_s: float = 20.0  # without a byte


class BodyReader:
    """Reads one body."""

    def __init__(
        self, request: Request, max_bytes: int, pace: Pace, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """Begin to read.

        Raises:
            ConsoleError: the request says that its body is too long.
        """
        self._request, self._max_bytes, self._pace, self._clock = request, max_bytes, pace, clock
        self.declared = int(request.headers.get("content-length") or 0)
        if self.declared > max_bytes:
            raise self._too_long()

    async def pieces(self) -> AsyncIterator[bytes]:
        """Give the body piece by piece.

        Raises:
            ClientDisconnect: its sender left.
            ConsoleError: it is too long or too slow.
        """
        began_s, received, more = self._clock(), 0, True
        while more:
            allowed_s = self._pace.grace_s + received / self._pace.min_bytes_per_s
            left_s = min(self._pace.idle_s, began_s + allowed_s - self._clock())
            try:
                message = await asyncio.wait_for(self._request.receive(), left_s)
            except asyncio.TimeoutError:
                raise ConsoleError("slow", "the body came too slowly; try again over a better connection") from None
            if message["type"] == "http.disconnect":
                raise ClientDisconnect
            received += len(piece := message.get("body", b""))
            if received > self._max_bytes:
                raise self._too_long()
            more = message.get("more_body", False)
            if piece:
                yield piece

    async def whole(self) -> bytes:
        """Return the body."""
        return b"".join([piece async for piece in self.pieces()])

    def _too_long(self) -> ConsoleError:
        return ConsoleError("too_large", f"this is too large; send at most {self._max_bytes / 1e6:,.1f} MB at once")


async def read_fields(request: Request, model: type[BaseModel], pace: Pace) -> BaseModel:
    """Return a body of JSON, or a form without files.

    Raises:
        ConsoleError: it is too long, too slow, or not of the model.
    """
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind not in {"", "application/json", _FORM}:
        raise ConsoleError("unsupported", f"send application/json or {_FORM}")
    data = await BodyReader(request, MAX_BODY_BYTES, pace).whole()
    if kind == _FORM:
        try:
            pairs = parse_qsl(data.decode("utf-8", "replace"), keep_blank_values=True, max_num_fields=_MAX_PAIRS)
        except ValueError as error:
            raise ConsoleError("too_large", f"the form has too many fields; send at most {_MAX_PAIRS}") from error
        return validated(model, fields_of(pairs, model))
    try:
        return validated(model, parse_json(data or b"{}", MAX_BODY_BYTES))
    except ValueError as error:
        raise ConsoleError("invalid", f"the body is no JSON that can be used: {error}") from error


async def read_upload(
    request: Request, max_bytes: int, folder: Path, pace: Pace
) -> tuple[list[tuple[str, str]], tuple[UploadedFile, ...]]:
    """Read a form with files, which are written to a folder.

    Raises:
        ConsoleError: it is too long, too slow or no form, or the disk is full.
        ClientDisconnect: its sender left.
    """
    reader = BodyReader(request, max_bytes, pace)
    form = FormWriter(folder, request.headers.get("content-type", ""))
    await run_in_threadpool(check_free_space, folder, reader.declared)
    try:
        waiting = bytearray()
        async for piece in reader.pieces():
            waiting += piece
            if len(waiting) >= _PIECE_BYTES:
                await run_in_threadpool(form.write, bytes(waiting))
                waiting.clear()
        await run_in_threadpool(form.write, bytes(waiting))
        form.end()
    finally:
        form.close()
    return form.fields, tuple(form.files)


def fields_of(pairs: Iterable[tuple[str, str]], model: type[BaseModel]) -> dict[str, Any]:
    """Return the fields of a form or query: lists where the model has them; empty texts are absent.

    An empty text stays where the model has a plain text: somebody emptied the field.
    """
    about = {one.alias or name: one.annotation for name, one in model.model_fields.items()}
    found: dict[str, Any] = {}
    for name, value in pairs:
        if name in about and _is_list(about[name]):
            found.setdefault(name, []).append(value)
        elif value != "" or about.get(name) is str:
            found[name] = value
    return found


def validated(model: type[BaseModel], fields: Any) -> BaseModel:
    """Return the fields as their model.

    Raises:
        ConsoleError: one is wrong.
    """
    try:
        found = model.model_validate(fields)
    except ValidationError as error:
        raise ConsoleError("invalid", first_validation_error(error)) from error
    except RecursionError as error:
        raise ConsoleError("invalid", "the body is nested too deeply") from error
    check_values(found.model_dump())
    return found


def check_values(values: Any) -> None:
    """Check that values can be stored and sent: rule 2.

    Raises:
        ConsoleError: one cannot.
    """
    waiting = [values]
    while waiting:
        one = waiting.pop()
        if isinstance(one, dict):
            waiting += [*one.keys(), *one.values()]
        elif isinstance(one, list | tuple | set | frozenset):
            waiting += one
        elif isinstance(one, str):
            if "\0" in one or not _is_unicode(one):
                raise ConsoleError("invalid", "a text holds a NUL character or half a character; remove it")
        elif isinstance(one, int | float) and not (math.isfinite(one) and abs(one) <= LARGEST_NUMBER):
            raise ConsoleError("invalid", "a number is too large")


def _is_unicode(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _is_list(annotation: Any) -> bool:
    """Return whether a type is a list, a tuple or a set, or may be one."""
    origin = typing.get_origin(annotation)
    if origin is typing.Annotated:
        return _is_list(typing.get_args(annotation)[0])
    if origin is typing.Union or isinstance(annotation, types.UnionType):
        return any(_is_list(one) for one in typing.get_args(annotation))
    kind = origin or annotation
    if not isinstance(kind, type) or issubclass(kind, str | bytes):
        return False
    return issubclass(kind, list | tuple | set | frozenset) or kind.__module__ == "collections.abc"
