"""Upload of taught items."""

from __future__ import annotations

import pytest

from edge.errors import FileRefusedError
from edge.kiosk.taught_store import TaughtStore
from edge.kiosk.taught_upload import pending_items
from edge.uploads.upload import upload_pending

AT = "2026-01-01T00:00:00Z"


@pytest.fixture
def store(tmp_path):
    return TaughtStore(tmp_path, 10)


def upload(store, put):
    """Upload what waits; return the results."""
    results = []
    upload_pending(lambda: pending_items(store), put, results.append)
    return results


def test_pending_items_are_uploaded_once(store):
    items = [store.save(name, None, [b"x"], AT) for name in ("a", "b")]
    taken = {}
    assert upload(store, taken.__setitem__) == ["taken", "taken"]
    assert taken == {f"{item.item_id}.zip": store.zip_item(item) for item in items}
    assert upload(store, taken.__setitem__) == []


def test_item_that_is_taught_again_is_uploaded_again(store):
    store.save("a", None, [b"x"], AT)
    assert upload(store, lambda *_: None) == ["taken"]
    store.save("a", None, [b"y"], AT)
    assert upload(store, lambda *_: None) == ["taken"]


def test_refused_item_stays_pending(store):
    store.save("a", None, [b"x"], AT)

    def refuse(name, body):
        raise FileRefusedError("too large")

    assert [upload(store, refuse), upload(store, refuse)] == [["refused"], ["refused"]]


def test_item_may_be_deleted_during_its_upload(store):
    item = store.save("a", None, [b"x"], AT)
    assert upload(store, lambda *_: store.forget(item.item_id)) == ["failed"]
    assert upload(store, lambda *_: None) == []
