"""What the adapter of hawkBit remembers of an action: one small file, written before anything is done.

    <state>/hawkbit.json

Rules this module keeps:
1. An action is remembered before its release is permitted, and its result before that is sent.
2. An action that was answered is not answered again. hawkBit numbers its actions upwards, and never uses one twice.
3. A damaged file counts as none: the action is begun again from what hawkBit says and the device shows.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, ClassVar, Literal

from pydantic import Field

from gallery_sync.adapters.device_view import Named
from gallery_sync.adapters.hawkbit_messages import Execution, Finished
from gallery_sync.formats.fields import Count, Document
from gallery_sync.state.documents import read_document, write_document

NAME = "hawkbit.json"
MOST_ANSWERED = 200
_LARGEST_BYTES = 1 << 17

Id = Annotated[str, Field(pattern=r"^[0-9]{1,18}$")]
Text = Annotated[str, Field(max_length=2000)]


class Result(Document):
    """How an action ends."""

    execution: Execution
    finished: Finished
    text: Text


class Action(Document):
    """An action of hawkBit that is under way."""

    id: Id
    named: Named | None = None  # the release; None: it is not known yet
    mark: Annotated[str, Field(max_length=4000)] | None = None  # of the newest try when the action came
    waited_s: Annotated[float, Field(ge=0.0, allow_inf_nan=False)] = 0.0  # that the agent did not work at the release
    failed_reads: Count = 0  # of its release.json
    told: Text = ""  # the last feedback
    feedbacks: Count = 0  # that were sent
    result: Result | None = None  # to be sent


class Record(Document):
    """The content of the file."""

    kind: ClassVar[str] = "record of hawkBit's actions"

    schema_name: Literal["finesight.hawkbit/1"] = Field(default="finesight.hawkbit/1", alias="schema")
    action: Action | None = None
    answered: Annotated[list[Id], Field(default_factory=list, max_length=MOST_ANSWERED)]  # the newest last
    failures: Count = 0  # turns that failed: of the network, of hawkBit, or of the disk
    problem: Text | None = None  # of the last turn; None: it went well

    def with_action(self, action: Action | None) -> Record:
        """Return it with another action."""
        return self.model_copy(update={"action": action})

    def after(self, action_id: str) -> Record:
        """Return it after an action was answered."""
        others = [one for one in self.answered if one != action_id]
        return self.model_copy(update={"action": None, "answered": [*others, action_id][-MOST_ANSWERED:]})


def read_record(state_dir: Path) -> Record:
    """Read the record of a device; an empty one if there is none, or it is damaged."""
    return read_document(Record, state_dir / NAME, _LARGEST_BYTES) or Record(answered=[])


def write_record(state_dir: Path, record: Record) -> None:
    """Write the record of a device.

    Raises:
        StorageError: the disk failed.
    """
    write_document(state_dir / NAME, record)
