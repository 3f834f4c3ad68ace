"""Strategies for damaged input: files of data sets with values replaced, removed or spliced."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

few_examples = settings(
    derandomize=True,
    max_examples=100,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],  # each example overwrites the file
)
words = st.sampled_from(["", "/", ".", "..", "a\0b", "x" * 5000, "\ud800", "²", "9" * 5000, "nan", "-1", "1e400", "é"])
texts = st.one_of(words, st.text(max_size=8))
json_values = st.recursive(
    st.one_of(st.none(), st.booleans(), st.sampled_from([0, -1, 3, 10**400]), st.floats(), texts),
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(texts, inner, max_size=3)),
    max_leaves=5,
)


def _places(tree: Any) -> Iterator[tuple[Any, Any]]:
    keys = list(tree) if isinstance(tree, dict) else range(len(tree)) if isinstance(tree, list) else ()
    for key in keys:
        yield tree, key
        yield from _places(tree[key])


@st.composite
def damaged_json(draw: st.DrawFn, tree: Any) -> str:
    """A JSON text with up to three values replaced or removed."""
    tree = copy.deepcopy(tree)
    for _ in range(draw(st.integers(1, 3))):
        if not (places := list(_places(tree))):
            break
        holder, key = places[draw(st.integers(0, len(places) - 1))]
        if draw(st.integers(0, 3)):
            holder[key] = draw(json_values)
        else:
            del holder[key]
    return json.dumps(tree)


@st.composite
def damaged_text(draw: st.DrawFn, text: str) -> str:
    """A text in which a word was replaced, or a part was cut out and something else was put there."""
    if draw(st.booleans()):
        parts = text.split(" ")
        parts[draw(st.integers(0, len(parts) - 1))] = draw(texts)
        return " ".join(parts)
    start = draw(st.integers(0, len(text)))
    end = draw(st.integers(start, min(len(text), start + 20)))
    return text[:start] + draw(texts) + text[end:]


@st.composite
def damaged_bytes(draw: st.DrawFn, data: bytes) -> bytes:
    """Bytes of which some were changed, or the end is missing."""
    changed = bytearray(data[: draw(st.integers(0, len(data)))] if draw(st.booleans()) else data)
    for _ in range(draw(st.integers(0, 4))):
        if changed:
            changed[draw(st.integers(0, len(changed) - 1))] = draw(st.integers(0, 255))
    return bytes(changed)


def write(path: Any, text: str) -> None:
    """Write a text that may hold lone surrogates, which become invalid UTF-8."""
    path.write_bytes(text.encode("utf-8", "surrogatepass"))
