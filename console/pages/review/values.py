"""What the API of the review reads and answers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from console.review.decisions import CropState, Outcome
from console.review.proposals import Suggestion
from console.review.queue import Progress, QueuedCrop

Id = Annotated[int, Field(ge=0, lt=2**53)]
Text = Annotated[str, Field(max_length=1024)]
DecisionId = Annotated[str, Field(min_length=1, max_length=80, pattern=r"^[A-Za-z0-9_-]+$")]
State = Literal["open", "item", "unknown", "nothing"]
MOST_CROPS = 1000  # of one decision
MOST_DECISIONS = 200  # of one request


class _Body(BaseModel):
    model_config = ConfigDict(extra="forbid")


class CropsQuery(_Body):
    """Which crops, and from where on."""

    state: list[State] = Field(default=["open"], max_length=4)
    category: Text | None = None
    item: Text | None = None
    text: Annotated[str, Field(max_length=200)] = ""
    order: Literal["doubt", "sure", "picture"] = "doubt"
    after: Annotated[str, Field(max_length=80)] | None = None
    limit: Annotated[int, Field(ge=1, le=200)] = 60
    id: list[Id] | None = Field(default=None, max_length=200)  # these, and nothing else


class SeenCrop(_Body):
    """A crop, and the version of its decision that was seen."""

    id: Id
    version: Id


class DecisionBody(_Body):
    """A decision of a person. Exactly one of `state` and `undo` is given."""

    id: DecisionId  # made by the client: sent twice, it is stored once
    crops: list[SeenCrop] = Field(default=[], max_length=MOST_CROPS)
    state: Literal["item", "unknown", "nothing"] | None = None
    category: Text | None = None
    item: Text | None = None  # none: the id comes from the label
    label: Text | None = None
    undo: DecisionId | None = None  # the decision that is taken back


class DecisionsBody(_Body):
    """Decisions in their order."""

    decisions: list[DecisionBody] = Field(max_length=MOST_DECISIONS)
    shown: list[Id] = Field(default=[], max_length=200)  # crops whose proposals the client wants to know after it
    by: Text | None = None  # who decided; nobody else can send them, such as whoever logs in later in that browser


class AgainBody(_Body):
    """Whether crops that have proposals get new ones."""

    again: bool = False


class ItemsQuery(_Body):
    """Which items."""

    text: Annotated[str, Field(max_length=200)] = ""
    category: Text | None = None
    crop: Id | None = None  # items that look like it come first among equals
    limit: Annotated[int, Field(ge=1, le=100)] = 12


class AlikeQuery(_Body):
    """Of which item."""

    category: Text
    item: Text


class ThresholdBody(_Body):
    """Which crops a sample stands for."""

    similarity: Annotated[float, Field(ge=-1, le=1)]
    margin: Annotated[float, Field(ge=0, le=1)] = 0.0
    seed: Id | None = None  # none: a random one


class AcceptBody(_Body):
    """What a person saw in a sample."""

    looked_at: list[Id] = Field(max_length=100)
    wrong: list[Id] = Field(default=[], max_length=100)


class UndoBody(_Body):
    """How much is taken back."""

    whole: bool = False  # the whole decision that the row is of


class ProposalValue(BaseModel):
    """An item that a crop may show."""

    category: str
    item: str
    label: str
    similarity: float
    crop: int | None  # the nearest decided crop; none: the gallery proposes it

    @classmethod
    def of(cls, one: Suggestion) -> ProposalValue:
        """Return the value of a suggestion."""
        return cls(
            category=one.category, item=one.item, label=one.label, similarity=round(one.similarity, 4), crop=one.crop_id
        )


class CropValue(BaseModel):
    """A crop of the queue."""

    id: int
    version: int
    picture: int
    name: str
    width: int
    height: int
    box: tuple[float, float, float, float]
    state: str
    category: str | None
    item: str | None
    label: str | None
    by: str | None
    at: float | None
    doubt: float
    folded: int
    proposed_category: str | None
    proposals: list[ProposalValue] | None  # none: no model has looked yet

    @classmethod
    def of(cls, one: QueuedCrop, proposals: Sequence[Suggestion] | None) -> CropValue:
        """Return the value of a crop."""
        return cls(
            id=one.id, version=one.version, picture=one.picture_id, name=one.picture_name,
            width=one.picture_size[0], height=one.picture_size[1], box=one.box_px, state=one.state,
            category=one.category, item=one.item, label=one.label, by=one.decided_by, at=one.decided_at,
            doubt=round(one.doubt, 4), folded=one.folded, proposed_category=one.proposed_category,
            proposals=None if proposals is None else [ProposalValue.of(p) for p in proposals],
        )  # fmt: skip


class CropsValue(BaseModel):
    """A page of the queue."""

    crops: list[CropValue]
    after: str | None  # where the next page goes on; none: this is the last one


class StateValue(BaseModel):
    """A crop after a decision."""

    id: int
    version: int
    state: str
    category: str | None
    item: str | None
    label: str | None
    by: str | None
    at: float | None

    @classmethod
    def of(cls, one: CropState) -> StateValue:
        """Return the value of a state."""
        return cls(
            id=one.id, version=one.version, state=one.state, category=one.category, item=one.item, label=one.label,
            by=one.decided_by, at=one.decided_at,
        )  # fmt: skip


class OutcomeValue(BaseModel):
    """What became of a decision."""

    id: str
    stored: list[StateValue]
    conflicts: list[StateValue]  # somebody else changed these meanwhile
    gone: list[int]  # deleted meanwhile, or never in this set

    @classmethod
    def of(cls, one: Outcome) -> OutcomeValue:
        """Return the value of an outcome."""
        return cls(
            id=one.id, stored=[StateValue.of(s) for s in one.stored],
            conflicts=[StateValue.of(s) for s in one.conflicts], gone=list(one.gone),
        )  # fmt: skip


class ProgressValue(BaseModel):
    """How far the review of a set is."""

    open: int
    item: int
    unknown: int
    nothing: int
    folded: int
    unseen: int
    proposing: bool  # a task fills proposals now

    @classmethod
    def of(cls, one: Progress, *, proposing: bool) -> ProgressValue:
        """Return the value of a progress."""
        return cls(
            open=one.open, item=one.item, unknown=one.unknown, nothing=one.nothing, folded=one.folded,
            unseen=one.unseen, proposing=proposing,
        )  # fmt: skip


class DecisionsValue(BaseModel):
    """What became of decisions, and what follows of them."""

    outcomes: list[OutcomeValue]
    proposals: dict[int, list[ProposalValue]]  # of the crops that are shown
    progress: ProgressValue


class ItemValue(BaseModel):
    """An item that a crop can be named as."""

    category: str
    item: str
    label: str
    in_gallery: bool


class ItemsValue(BaseModel):
    """Items whose label or id holds a text."""

    items: list[ItemValue]
    categories: list[str]


class AlikeValue(BaseModel):
    """Decided crops of an item."""

    crops: list[int]


class CellValue(BaseModel):
    """Open crops of about one similarity and margin, in steps of 0.01."""

    similarity: int
    margin: int
    shown: int
    crops: int


class CellsValue(BaseModel):
    """How many crops a threshold would accept."""

    cells: list[CellValue]
    bounds: list[float]  # largest likely share of wrong ones, by the number of wrong ones in a sample of 20


class SampleValue(BaseModel):
    """What to look at before a threshold is accepted."""

    id: int
    seed: int
    crops: int  # that it stands for
    sample: list[CropValue]


class TaskKeyValue(BaseModel):
    """A background task that was started; see /api/v1/tasks."""

    key: str
    name: str


class UnfoldedValue(BaseModel):
    """Crops that stand for themselves now."""

    crops: list[CropValue]
