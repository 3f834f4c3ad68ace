"""The taught items that are to be uploaded for training."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

from edge.kiosk.taught_store import TaughtStore
from edge.uploads.upload import Upload


def pending_items(store: TaughtStore) -> Iterator[Upload]:
    """Yield the taught items whose newest revision is not uploaded yet, the oldest first, each as a zip file.

    An item that the server refuses stays pending: a person taught it.
    """
    for item in store.pending_upload():
        yield Upload(
            f"{item.item_id}.zip",
            f"{item.item_id} {item.label!r}",
            partial(store.zip_item, item),
            partial(store.mark_uploaded, item),
        )
