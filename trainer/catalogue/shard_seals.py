"""The seal of a shard: which part files hold it, with their hashes, and what it is a shard of."""

from __future__ import annotations

import hashlib
import json
from collections import defaultdict
from collections.abc import Sequence
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from edge.errors import TrainError, first_validation_error
from trainer.catalogue.part_files import PartEntry
from trainer.catalogue.storage import Folder

PATTERN = "shard-*.json"


class ShardSeal(BaseModel):
    """A shard whose items are all embedded."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    schema_version: Literal[1] = 1
    shard: Annotated[int, Field(ge=1)]
    of: Annotated[int, Field(ge=1)]
    run: str  # hash of bundle, catalogue and options: equal for all shards of a gallery
    items: int = 0
    parts: list[PartEntry] = []
    not_embedded: dict[str, int] = {}  # pictures of each category that the bundle has no embedder for
    damaged_parts: int = 0  # of earlier runs, whose items were embedded again

    @property
    def name(self) -> str:
        """As `--shard` takes it."""
        return f"{self.shard}/{self.of}"

    @property
    def counts(self) -> dict[str, object]:
        """What the command line tells of it."""
        return {"not_embedded": self.not_embedded, "damaged_parts": self.damaged_parts}


def write_seal(folder: Folder, seal: ShardSeal) -> None:
    """Write the seal of a shard, with a hash of itself.

    Raises:
        TrainError: it cannot be written.
    """
    tree = seal.model_dump(mode="json")
    text = json.dumps({"sha256": _hash(tree), **tree})
    folder.write(f"shard-{seal.shard:05d}-of-{seal.of:05d}.json", text.encode())


def read_seals(folders: Sequence[Folder]) -> list[tuple[Folder, ShardSeal]]:
    """Return the seals of all shards of one gallery, in order, each with the folder of its parts.

    Raises:
        TrainError: a shard is missing, there twice, damaged, or of something else; the message names it.
    """
    where = ", ".join(folder.where for folder in folders)
    found = [(folder, _read(folder, name)) for folder in folders for name in folder.names(PATTERN)]
    if not found:
        raise TrainError(f"{where}: holds no finished shard; run edge-train embed with --shard first")
    of, run = found[0][1].of, found[0][1].run
    by_number: dict[int, list[str]] = defaultdict(list)
    for folder, seal in found:
        if seal.of != of or seal.run != run:
            raise TrainError(
                f"{folder.where}: shard {seal.name} is of another bundle, catalogue, option or number of shards than "
                f"shard {found[0][1].name} in {found[0][0].where}; give shards of one gallery, each gallery in folders "
                "of its own"
            )
        by_number[seal.shard].append(folder.where)
    for number, places in sorted(by_number.items()):
        if len(places) > 1:
            raise TrainError(f"shard {number}/{of} is there {len(places)} times: in {', '.join(places)}; give one")
    if missing := sorted(set(range(1, of + 1)) - by_number.keys()):
        listed = ", ".join(f"{number}/{of}" for number in missing)
        raise TrainError(
            f"{where}: lacks the shards {listed}; run edge-train embed --shard for each, or give its folder"
        )
    return sorted(found, key=lambda one: one[1].shard)


def _read(folder: Folder, name: str) -> ShardSeal:
    where = f"{folder.where}/{name}"
    try:
        tree = json.loads(folder.read(name))
        expected = tree.pop("sha256")
        seal = ShardSeal.model_validate(tree)
    except ValidationError as error:
        raise TrainError(f"{where}: {first_validation_error(error)}; embed this shard again") from error
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise TrainError(f"{where}: is damaged; run edge-train embed for this shard again") from error
    if _hash(tree) != expected:
        raise TrainError(f"{where}: is damaged; run edge-train embed for this shard again")
    return seal


def _hash(tree: object) -> str:
    return hashlib.sha256(json.dumps(tree, sort_keys=True).encode()).hexdigest()
