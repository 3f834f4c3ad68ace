"""What the pages and the API of galleries take and answer."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from console.galleries.browse import Query
from console.galleries.drafts import MOST_OPEN, MOST_PICTURES, MOST_VECTORS
from edge.gallery.limits import MAX_CATEGORY_CHARACTERS, MAX_ID_CHARACTERS, MAX_LABEL_CHARACTERS, MAX_METADATA_BYTES

Category = Annotated[str, Field(min_length=1, max_length=MAX_CATEGORY_CHARACTERS)]
ItemId = Annotated[str, Field(min_length=1, max_length=MAX_ID_CHARACTERS)]
Label = Annotated[str, Field(min_length=1, max_length=MAX_LABEL_CHARACTERS)]
Number = Annotated[int, Field(ge=0, lt=2**53)]
Seen = Annotated[str, Field(max_length=40, description="state of the item that you saw; a newer one is a conflict")]
VectorName = Annotated[str, Field(pattern="^[0-9a-f]{24}$")]


class _Values(BaseModel):
    model_config = ConfigDict(extra="forbid")


class ItemsQuery(BaseModel):
    """Which items, in which order, from where on."""

    q: Annotated[str, Field(max_length=200)] = ""
    sort: Literal["label", "vectors", "change"] = "label"
    only: Literal["", "few", "faceless", "negative"] = ""
    value: Number | None = None
    id: Number | None = None
    at: Annotated[Number | None, Field(description="id of the item to begin at; for letters")] = None
    name: Annotated[str, Field(max_length=MAX_CATEGORY_CHARACTERS)] = ""

    def browsed(self) -> Query:
        """Return it as the room's query."""
        after = None
        if self.at is not None:
            after = (0, max(0, self.at - 1))
        elif self.id is not None:
            after = (self.value or 0, self.id)
        return Query(self.q, self.sort, self.only, after)


class CategoryItemsQuery(ItemsQuery):
    """Which items of which category."""

    category: Category


class ItemQuery(BaseModel):
    """Which item."""

    item: Annotated[str, Field(max_length=MAX_ID_CHARACTERS)] = ""
    category: Annotated[str, Field(max_length=MAX_CATEGORY_CHARACTERS)] = ""
    name: Annotated[str, Field(max_length=MAX_CATEGORY_CHARACTERS)] = ""


class SplitQuery(BaseModel):
    """Which item of which category."""

    category: Category
    item: ItemId
    remove: bool = False


class PairQuery(BaseModel):
    """Which category; none: all."""

    category: Annotated[str, Field(max_length=MAX_CATEGORY_CHARACTERS)] = ""


class ThumbnailQuery(BaseModel):
    """Whose thumbnail."""

    category: Category
    item: ItemId
    v: Annotated[str, Field(max_length=40, description="changes when the picture may have changed")] = ""


class CategoryValue(BaseModel):
    """A category of the gallery."""

    category: str
    items: int
    vectors: int
    few: int
    without_thumbnail: int
    negative: int
    searched: bool


class CategoryValues(BaseModel):
    """The categories of the gallery."""

    categories: list[CategoryValue]
    release: int | None


class ItemValue(BaseModel):
    """An item of the gallery."""

    item: str
    label: str
    vectors: int
    negative: bool
    thumbnail: bool


class ItemValues(BaseModel):
    """A page of items; `next_value` and `next_id` go into `value` and `id` of the next one."""

    items: list[ItemValue]
    next_value: int | None
    next_id: int | None


class DraftValue(BaseModel):
    """A change that waits to be published."""

    id: int
    by: str
    at: float
    kind: str
    category: str
    item: str
    does: list[str]
    problem: str
    warnings: list[str]
    waits: bool


class PlanValue(BaseModel):
    """What all changes that wait do together."""

    version: str
    ready: bool
    items: int
    drafts: list[DraftValue]


class RenameBody(_Values):
    """Another label."""

    category: Category
    item: ItemId
    label: Label
    seen: Seen = ""


class MetadataBody(_Values):
    """Other metadata."""

    category: Category
    item: ItemId
    metadata: Annotated[str, Field(max_length=MAX_METADATA_BYTES, description="JSON text of an object")]
    seen: Seen = ""


class NegativeBody(_Values):
    """Whether an item must not be named."""

    category: Category
    item: ItemId
    negative: bool
    seen: Seen = ""


class MergeBody(_Values):
    """Two items become one: `target` stays."""

    category: Category
    item: ItemId
    target: ItemId
    seen: Seen = ""


class SplitBody(_Values):
    """Some vectors become an item of their own."""

    category: Category
    item: ItemId
    new_item: ItemId
    label: Label
    vectors: Annotated[list[Annotated[str, Field(max_length=25 * MOST_VECTORS)]], Field(max_length=1000)]
    thumbnail: Annotated[Number | None, Field(description="the draft whose thumbnail the new item gets")] = None
    seen: Seen = ""


class RemoveBody(_Values):
    """Some vectors are taken away."""

    category: Category
    item: ItemId
    vectors: Annotated[list[Annotated[str, Field(max_length=25 * MOST_VECTORS)]], Field(max_length=1000)]
    seen: Seen = ""


class DeleteBody(_Values):
    """An item is deleted."""

    category: Category
    item: ItemId
    urgent: bool = False
    seen: Seen = ""


class RestoreBody(_Values):
    """An item becomes what it was before a gallery sequence."""

    category: Category
    item: ItemId
    gallery: Annotated[int, Field(ge=1, lt=2**53)]
    release: Number | None = None


class AddBody(_Values):
    """Uploaded pictures of an item."""

    category: Category
    item: ItemId
    label: Annotated[str, Field(max_length=MAX_LABEL_CHARACTERS)] = ""
    metadata: Annotated[str, Field(max_length=MAX_METADATA_BYTES, description="JSON text of an object, or empty")] = ""
    negative: bool = False


class CropsBody(_Values):
    """Crops as pictures of an item."""

    category: Category
    item: ItemId
    label: Annotated[str, Field(max_length=MAX_LABEL_CHARACTERS)] = ""
    crops: Annotated[list[Number], Field(min_length=1, max_length=MOST_PICTURES)]


class PublishBody(_Values):
    """Which changes to publish, of the plan of which version."""

    version: Annotated[str, Field(max_length=40)]
    drafts: Annotated[list[Number], Field(min_length=1, max_length=MOST_OPEN)]
    hold: bool = False


class MadeValue(BaseModel):
    """The drafts that were made."""

    drafts: list[int]
    does: str
