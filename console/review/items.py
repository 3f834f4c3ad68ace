"""The items that a crop can be named as: those of the gallery, and those that people have named in sets before.

Rules this module keeps:
1. An item has one label: the gallery's, or the one that it was named with last. Who chooses an item takes its label.
2. A new item's id comes from its label, and is unique in its category.
"""

from __future__ import annotations

import heapq
import re
import sqlite3
import threading
import unicodedata
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from edge.errors import ConsoleError, FinesightError
from edge.gallery.generation import read_gallery
from edge.gallery.limits import MAX_CATEGORY_CHARACTERS, MAX_ID_CHARACTERS, MAX_LABEL_CHARACTERS, text_problem
from edge.gallery.store_file import open_store

_MOST_GALLERIES = 2  # kept in memory
_SLUG_CHARACTERS = 60
_NAMED = "SELECT DISTINCT category, item, label FROM crops INDEXED BY crops_decided WHERE set_id = ? AND state = 'item'"


@dataclass(frozen=True, slots=True)
class Item:
    """An item of a category."""

    category: str
    item: str
    label: str
    in_gallery: bool


@dataclass(frozen=True, slots=True)
class ItemList:
    """The items of a gallery, or of any other source."""

    by_id: dict[tuple[str, str], Item] = field(default_factory=dict)
    by_label: dict[tuple[str, str], Item] = field(default_factory=dict)  # category and folded label
    folded: list[tuple[str, Item]] = field(default_factory=list)  # text to search, and the item

    def add(self, item: Item) -> None:
        """Add an item that is not there yet."""
        if self.by_id.setdefault((item.category, item.item), item) is item:
            self.by_label.setdefault((item.category, folded(item.label)), item)
            self.folded.append((f"{folded(item.label)}\n{folded(item.item)}", item))


class Items:
    """The known items; any thread may use it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._galleries: OrderedDict[tuple[str, int], ItemList] = OrderedDict()

    def known(self, rows: sqlite3.Connection, set_id: int, gallery: Path | None) -> KnownItems:
        """Return the items that the crops of a set may be named as.

        Args:
            rows: the database.
            set_id: a set, whose named items count, too.
            gallery: folder of a gallery generation; None: without one.
        """
        named = ItemList()
        for category, item, label in rows.execute(_NAMED, (set_id,)):
            named.add(Item(category, item, label or item, in_gallery=False))
        return KnownItems(self._of_gallery(gallery), named, rows)

    def _of_gallery(self, folder: Path | None) -> ItemList:
        if folder is None:
            return ItemList()
        try:
            key = str(folder.resolve()), (folder / "gallery.json").stat().st_mtime_ns
        except OSError:
            return ItemList()
        with self._lock:
            if key not in self._galleries:
                self._galleries[key] = _read_gallery(folder)
                while len(self._galleries) > _MOST_GALLERIES:
                    self._galleries.popitem(last=False)
            self._galleries.move_to_end(key)
            return self._galleries[key]


@dataclass(frozen=True, slots=True)
class KnownItems:
    """What is known of items, the gallery's first."""

    gallery: ItemList
    named: ItemList
    rows: sqlite3.Connection  # for what people have named in other sets

    def find(self, category: str, item: str) -> Item | None:
        """Return an item; None if nobody knows it."""
        known = self.gallery.by_id.get((category, item)) or self.named.by_id.get((category, item))
        if known is not None:
            return known
        row = self.rows.execute(
            "SELECT label FROM crops WHERE category = ? AND item = ? AND state = 'item' "
            "ORDER BY decided_at DESC LIMIT 1",
            (category, item),
        ).fetchone()
        return None if row is None else Item(category, item, row[0] or item, in_gallery=False)

    def named_as(self, category: str, label: str) -> Item:
        """Return the item with a label, or a new one with an id from the label."""
        key = category, folded(label)
        known = self.gallery.by_label.get(key) or self.named.by_label.get(key)
        if known is not None:
            return known
        base, number = slug(label), 1
        while True:
            item = base if number == 1 else f"{base}-{number}"
            known = self.find(category, item)
            if known is None:
                return Item(category, item, label, in_gallery=False)
            if folded(known.label) == folded(label):
                return known
            number += 1

    def search(self, text: str, category: str | None, most: int, near: Sequence[tuple[str, str]] = ()) -> list[Item]:
        """Return items that a text may mean, the likeliest first.

        Args:
            text: beginning of the label or of words of it, its initials, or a part of label or id.
            category: only of this one; None: of all.
            most: of the result.
            near: category and id of items that look alike, the nearest first: they come first among equals.
        """
        wanted = folded(text)
        place = {key: rank for rank, key in enumerate(near)}
        found: dict[tuple[str, str], tuple[tuple[int, int, int, str, str], Item]] = {}
        for rank, source in enumerate((self.named, self.gallery)):
            for searched, item in source.folded:
                if category is not None and item.category != category:
                    continue
                how = _match(wanted, searched)
                if how is not None:
                    key = item.category, item.item
                    order = (how, place.get(key, len(place)), rank, item.label, item.item)
                    found.setdefault(key, (order, item))
        return [item for _, item in heapq.nsmallest(most, found.values(), key=lambda one: one[0])]

    def categories(self) -> list[str]:
        """Return the categories that have items."""
        return sorted({key[0] for source in (self.named, self.gallery) for key in source.by_id})


def folded(text: str) -> str:
    """Return a text as it is compared: without case, accents' encoding, and double spaces."""
    return " ".join(unicodedata.normalize("NFKC", text).casefold().split())


def _match(wanted: str, searched: str) -> int | None:
    """Return how well a folded text matches label and id: 0 best; None: not at all."""
    if searched.startswith(wanted):
        return 0
    words = searched.partition("\n")[0].split()
    if "".join(word[0] for word in words).startswith(wanted):
        return 1
    if all(any(word.startswith(part) for word in words) for part in wanted.split()):
        return 2
    return 3 if wanted in searched else None


def slug(label: str) -> str:
    """Return the id that a label gives: `Crème brûlée 2 l` is `creme-brulee-2-l`; letters of any script stay."""
    plain = "".join(one for one in unicodedata.normalize("NFKD", label) if not unicodedata.combining(one))
    return re.sub(r"[\W_]+", "-", plain.casefold()).strip("-")[:_SLUG_CHARACTERS].strip("-") or "item"


def checked_text(name: str, text: str, most: int) -> str:
    """Return a text of a person without spaces around it.

    Raises:
        ConsoleError: it is empty, too long, or holds characters that no gallery takes.
    """
    text = text.strip()
    if not text:
        raise ConsoleError("invalid", f"{name}: is empty; type one")
    problem = text_problem(text, most)
    if problem is None and any(unicodedata.category(one) in ("Cc", "Cs") for one in text):
        problem = "found a control character; remove it"
    if problem is not None:
        raise ConsoleError("invalid", f"{name}: {problem}")
    return text


def checked_category(text: str) -> str:
    """Return the name of a category, see checked_text."""
    return checked_text("category", text, MAX_CATEGORY_CHARACTERS)


def checked_item(text: str) -> str:
    """Return the id of an item, see checked_text."""
    return checked_text("id", text, MAX_ID_CHARACTERS)


def checked_label(text: str) -> str:
    """Return a label, see checked_text."""
    return checked_text("label", text, MAX_LABEL_CHARACTERS)


def _read_gallery(folder: Path) -> ItemList:
    """Return the items of a gallery; those of a store that cannot be read are left out: recognition says why."""
    found = ItemList()
    try:
        gallery = read_gallery(folder, verify=False)
    except FinesightError:
        return found
    for category in gallery.categories:
        try:
            with open_store(gallery.path(category)) as store:
                for item, label in store.execute("SELECT item_id, label FROM items WHERE deleted = 0"):
                    found.add(Item(category, item, label, in_gallery=True))
        except FinesightError:
            continue
    return found
