"""Lists the taught items of a kiosk on this machine. Its folder is only read: the device owns it."""

from __future__ import annotations

from pathlib import Path

from pydantic import ValidationError

from console.sets.listings import FolderListing, Listed
from console.sets.pictures import Known
from dataset_formats.notices import printable
from edge.errors import ConsoleError, one_line
from edge.kiosk.taught_store import TaughtItem

TAUGHT = "overlay"  # folder of taught items in the state folder of a device
_ITEM, _MAX_ITEM_BYTES = "item.json", 64 << 10
MOST_ITEMS = 5000


def list_taught(folder: Path, category: str | None) -> FolderListing:
    """List the pictures of all taught items. A damaged item is left out and named.

    Args:
        folder: of taught items.
        category: of items whose category nobody named.

    Raises:
        ConsoleError: the folder cannot be read.
    """
    listing = FolderListing()
    try:
        found = sorted(path for path in folder.glob("taught-*") if path.is_dir() and not path.is_symlink())
    except OSError as error:
        raise ConsoleError("missing", f"{folder}: cannot be read: {error.strerror}") from error
    for path in found[:MOST_ITEMS]:
        try:
            item = _read(path)
        except (OSError, ValidationError, ValueError) as error:
            listing.left_out.append(printable(f"{path.name}: damaged item: {str(error).splitlines()[0]}"))
            continue
        known = Known(_source(item), item.category or category, item.item_id, one_line(item.label[:200]))
        for number in range(min(item.looks, 100)):
            name = f"{path.name}/look-{number}.jpg"
            listing.pictures[name] = Listed(name, known)
    return listing


def _read(path: Path) -> TaughtItem:
    file = path / _ITEM
    if file.stat().st_size > _MAX_ITEM_BYTES:
        raise ValueError(f"{_ITEM} has more than {_MAX_ITEM_BYTES} bytes")
    item = TaughtItem.model_validate_json(file.read_bytes())
    if item.item_id != path.name:
        raise ValueError(f"{_ITEM} names another item, {item.item_id}")
    return item


def _source(item: TaughtItem) -> dict[str, str]:
    source = {"taught": item.item_id, "label": one_line(item.label[:200]), "time": one_line(item.taught_at[:40])}
    if item.negative:
        source["reason"] = "must not be named"
    return source
