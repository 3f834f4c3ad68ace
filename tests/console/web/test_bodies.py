"""Bodies of requests: how fast they must arrive, and what they may hold."""

from __future__ import annotations

import asyncio
from typing import Annotated, Literal

import pytest
from pydantic import BaseModel, Field
from starlette.requests import ClientDisconnect, Request

from console.web.bodies import BodyReader, Pace, check_values, fields_of, read_fields, validated
from edge.errors import ConsoleError


class Model(BaseModel):
    name: str = ""
    short: Annotated[str, Field(max_length=3)] = ""
    number: int | None = None
    names: list[str] | None = None
    numbers: Annotated[list[int], Field(max_length=9)] = []
    pair: tuple[int, int] | None = None
    kinds: set[Literal["a", "b"]] = set()
    shown: Annotated[list[str] | None, Field(alias="show")] = None
    tree: dict[str, object] = {}


def request(pieces, pause_s=0.0, **headers):
    """Return a request whose body comes in pieces; None: its sender leaves."""
    left = list(pieces)

    async def receive():
        await asyncio.sleep(pause_s if left else 0.0)
        piece = left.pop(0) if left else None
        if piece is None:
            return {"type": "http.disconnect"}
        return {"type": "http.request", "body": piece, "more_body": bool(left)}

    encoded = [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
    return Request({"type": "http", "method": "POST", "headers": encoded, "path": "/"}, receive)


def read(sent, max_bytes=100, pace=Pace(), clock=None):  # noqa: B008  frozen
    more = {} if clock is None else {"clock": clock}
    return asyncio.run(BodyReader(sent, max_bytes, pace, **more).whole())


def test_body_is_put_together():
    assert read(request([b"ab", b"", b"c"])) == b"abc"


def test_body_is_bounded_with_and_without_its_length():
    for sent in ([request([b"x" * 60, b"x" * 41])], [request([b""], content_length="101")]):
        with pytest.raises(ConsoleError, match="too large") as caught:
            read(sent[0])
        assert caught.value.reason == "too_large"


def test_sender_who_leaves_is_no_failure():
    with pytest.raises(ClientDisconnect):
        read(request([b"ab", None]))


def test_sender_who_falls_silent_is_not_waited_for():
    with pytest.raises(ConsoleError, match="too slowly") as caught:
        read(request([b"ab", b"c"], pause_s=30.0), pace=Pace(idle_s=0.01))
    assert caught.value.reason == "slow"


def test_trickle_is_too_slow_and_a_slow_link_is_not():
    ticks = iter(range(0, 10_000, 5))  # each piece takes five seconds
    with pytest.raises(ConsoleError, match="too slowly"):
        read(request([b"x"] * 100), max_bytes=10**9, clock=lambda: float(next(ticks)))
    ticks = iter(range(0, 10_000, 5))
    assert len(read(request([b"x" * 100_000] * 100), 10**9, clock=lambda: float(next(ticks)))) == 10**7


@pytest.mark.parametrize(
    ("body", "content_type", "reason"),
    [
        (b"{", "application/json", "invalid"),
        (b"[]", "application/json", "invalid"),
        (b"null", "application/json", "invalid"),
        (b'{"number": NaN}', "application/json", "invalid"),
        (b'{"number": 1e999}', "application/json", "invalid"),
        (b'{"number": 9007199254740993}', "application/json", "invalid"),
        (b'{"name": "\\ud800"}', "application/json", "invalid"),
        (b'{"name": "a\\u0000b"}', "application/json", "invalid"),
        (b'{"tree": {"a": {"b\\u0000": 1}}}', "application/json", "invalid"),
        (b'{"name": "\xff"}', "application/json", "invalid"),
        (b'{"name": 1, "name": 2}', "application/json", "invalid"),
        (b"[" * 100_000, "application/json", "invalid"),
        (b"number=" + b"9" * 5000, "application/x-www-form-urlencoded", "invalid"),
        (b"name=%00", "application/x-www-form-urlencoded", "invalid"),
        (b"&a=1" * 6000, "application/x-www-form-urlencoded", "too_large"),
        (b"{}", "text/plain", "unsupported"),
        (b"{}", "multipart/form-data; boundary=x", "unsupported"),
        (b"x" * 2_000_001, "application/json", "too_large"),
    ],
)
def test_hostile_bodies_are_refused(body, content_type, reason):
    with pytest.raises(ConsoleError) as caught:
        asyncio.run(read_fields(request([body], content_type=content_type), Model, Pace()))
    assert caught.value.reason == reason
    assert len(str(caught.value)) < 700


def test_form_becomes_the_types_of_its_model():
    pairs = [
        *(("name", ""), ("short", ""), ("number", ""), ("names", "a"), ("names", ""), ("numbers", "1")),
        *(("numbers", "2"), ("pair", "3"), ("pair", "4"), ("kinds", "a"), ("show", "x")),
    ]
    assert fields_of(pairs, Model) == {
        "name": "", "short": "", "names": ["a", ""], "numbers": ["1", "2"], "pair": ["3", "4"], "kinds": ["a"],
        "show": ["x"],
    }  # fmt: skip
    assert validated(Model, fields_of(pairs, Model)).pair == (3, 4)


def test_last_of_a_field_that_is_no_list_counts():
    assert fields_of([("number", "1"), ("number", "2")], Model) == {"number": "2"}


@pytest.mark.parametrize("value", [2**53 + 1, -(2**53) - 1, float("inf"), float("nan"), "a\0", "\udfff", {"\0": 1}])
def test_values_that_cannot_be_stored_are_refused(value):
    with pytest.raises(ConsoleError):
        check_values({"a": [(1, {"b": value})]})
    check_values({"a": [(1, {"b": [True, None, "ü", 2**53, 0.5]})]})
