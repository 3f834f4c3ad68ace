"""What the API of sets takes and answers."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from console.sets.browsing import Filter, Tile
from console.sets.crops import Crop
from console.sets.pictures import Picture
from console.sets.sets import MAX_CATEGORY_CHARACTERS, MAX_NAME_CHARACTERS, Names, SetCounts, Shows

_MAX_ID = 2**53 - 1
_Name = Annotated[str, Field(max_length=MAX_NAME_CHARACTERS)]
_Category = Annotated[str, Field(max_length=MAX_CATEGORY_CHARACTERS)]
_Model = Annotated[str, Field(max_length=300)]
_Id = Annotated[int, Field(ge=0, le=_MAX_ID)]
_Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class _Body(BaseModel):
    model_config = ConfigDict(extra="forbid")


class ImageQuery(BaseModel):
    """How large an image is wanted."""

    px: Annotated[int, Field(ge=16, le=4096, description="longer side, rounded up to a step")] = 1600
    margin: Annotated[float, Field(ge=0, le=1, description="of a crop: growth of its box on each side")] = 0.08
    v: Annotated[str | None, Field(max_length=80, description="anything; the browser keeps it for long")] = None


class NewSetBody(_Body):
    """A set to make."""

    name: _Name
    kind: Literal["uploads", "folder", "inbox", "taught"] = "uploads"
    shows: Annotated[Shows, Field(description="one object fills each picture, or boxes come first")] = "scenes"
    category: Annotated[_Category, Field(description="of all its objects; empty: the models tell it")] = ""
    folder: Annotated[str, Field(max_length=4000, description="where kind is folder: on the console's server")] = ""
    names: Annotated[Names, Field(description="what the names of a data set in the folder are worth")] = "expect"
    model: _Model = ""


class ChangeBody(_Body):
    """A set as it is to be."""

    version: Annotated[_Id, Field(description="as the edit saw it")]
    name: _Name
    category: _Category = ""
    model: _Model = ""


class LookBody(_Body):
    """How to look through a folder."""

    again: Annotated[bool, Field(description="also read what could not be used, and what was removed")] = False


class UploadBody(_Body):
    """The fields of an upload beside its files."""

    folders_name_items: Annotated[bool, Field(description="category/item/photo.jpg: expected in the review")] = False


class KnownBody(_Body):
    """Hashes of pictures that may be in the set."""

    sha256: Annotated[list[_Sha256], Field(max_length=500)]


class PageQuery(BaseModel):
    """Which pictures of a set."""

    which: Filter = "all"
    split: Annotated[str | None, Field(max_length=40, description="train, val, test; none: without one")] = None
    after: _Id | None = None
    before: _Id | None = None


class FolderQuery(BaseModel):
    """A folder of the console's server."""

    path: Annotated[str, Field(max_length=4000)] = ""


class SetValue(BaseModel):
    """A set, and how far it is."""

    id: int
    name: str
    kind: str
    shows: str
    category: str | None
    model: str
    folder: str
    created_at: float
    created_by: str
    version: int
    pictures: int
    to_box: int
    crops: int
    open: int
    named: int
    unknown: int
    nothing: int
    problems: int

    @classmethod
    def of(cls, counts: SetCounts) -> SetValue:
        """Return the value of a set."""
        one = counts.set
        return cls(
            id=one.id, name=one.name, kind=one.kind, shows=one.shows, category=one.category, model=one.model,
            folder=str(one.folder), created_at=one.created_at, created_by=one.created_by, version=one.version,
            pictures=counts.pictures, to_box=counts.to_box, crops=counts.crops, open=counts.open, named=counts.named,
            unknown=counts.unknown, nothing=counts.nothing, problems=counts.problems,
        )  # fmt: skip


class SetsValue(BaseModel):
    """All sets, the newest first."""

    sets: list[SetValue]


class PictureValue(BaseModel):
    """A picture of a set."""

    id: int
    set_id: int
    name: str
    sha256: str
    size: int
    width: int
    height: int
    boxes: str
    split: str
    source: dict[str, Any]
    added_at: float
    version: int
    crops: int
    decided: int
    problem: str

    @classmethod
    def of(cls, one: Picture, crops: int, decided: int, problem: str) -> PictureValue:
        """Return the value of a picture."""
        return cls(
            id=one.id, set_id=one.set_id, name=one.name, sha256=one.sha256, size=one.size, width=one.width,
            height=one.height, boxes=one.boxes, split=one.split, source=dict(one.source), added_at=one.added_at,
            version=one.version, crops=crops, decided=decided, problem=problem,
        )  # fmt: skip

    @classmethod
    def of_tile(cls, tile: Tile) -> PictureValue:
        """Return the value of a tile."""
        return cls.of(tile.picture, tile.crops, tile.decided, tile.problem)


class PicturesValue(BaseModel):
    """Some pictures of a set."""

    pictures: list[PictureValue]
    before: int | None
    after: int | None


class CropValue(BaseModel):
    """One object of a picture, as far as it is known."""

    id: int
    box_px: tuple[float, float, float, float]
    state: str
    category: str | None
    item: str | None
    label: str | None
    decided_by: str | None

    @classmethod
    def of(cls, one: Crop) -> CropValue:
        """Return the value of a crop."""
        return cls(
            id=one.id, box_px=one.box_px, state=one.state, category=one.category, item=one.item, label=one.label,
            decided_by=one.decided_by,
        )  # fmt: skip


class OnePictureValue(BaseModel):
    """A picture with its objects."""

    picture: PictureValue
    crops: list[CropValue]


class TakenValue(BaseModel):
    """What became of one file."""

    name: str
    outcome: Literal["added", "known", "refused"]
    text: str
    picture_id: int | None


class UploadValue(BaseModel):
    """What became of uploaded files. `stopped`: why the rest was not taken, such as a full disk."""

    files: list[TakenValue]
    stopped: str = ""


class KnownValue(BaseModel):
    """The hashes that the set has already."""

    sha256: list[str]


class FoldersValue(BaseModel):
    """A folder and those in it."""

    path: str
    parent: str | None
    folders: list[str]


class NewSetValue(BaseModel):
    """A set that was made."""

    id: int


class VersionValue(BaseModel):
    """The new version of what was changed."""

    version: int
