"""The review of all sets: what the pages of the review use, with what is kept in memory between requests."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Sequence
from pathlib import Path

from console.background.tasks import Progress, Task, Tasks
from console.models.models import Models
from console.review import accept, propose
from console.review.decisions import Decision, Outcome, store
from console.review.items import Items, KnownItems
from console.review.neighbours import Neighbours
from console.review.proposals import MOST, Suggestion
from console.sets.sets import counted, find_set
from console.storage.database import Database
from edge.errors import FinesightError

_GALLERY_S = 10.0  # to find the gallery of a choice takes long: it is not done for each decision
_RANKED_AT_ONCE = 3000  # open crops that a request may rank before it answers


class Review:
    """The review; any thread may use it."""

    def __init__(self, database: Database, models: Models, tasks: Tasks) -> None:
        self._database, self._models, self._tasks = database, models, tasks
        self._neighbours, self.items = Neighbours(), Items()
        self._galleries: dict[str, tuple[float, Path | None]] = {}  # by choice: when it was asked for, and its folder

    def gallery_of(self, model: str) -> Path | None:
        """Return the gallery of a set's choice of models; None if there is none."""
        known = self._galleries.get(model)
        if known is None or time.monotonic() - known[0] > _GALLERY_S:
            try:
                gallery = self._models.choice(model).gallery
            except FinesightError:
                gallery = None
            known = self._galleries[model] = (time.monotonic(), gallery)
        return known[1]

    def known(self, rows: sqlite3.Connection, set_id: int, model: str) -> KnownItems:
        """Return the items that crops of a set may be named as."""
        return self.items.known(rows, set_id, self.gallery_of(model))

    def suggest(
        self, rows: sqlite3.Connection, set_id: int, crop_ids: Sequence[int], most: int = MOST
    ) -> dict[int, tuple[Suggestion, ...]]:
        """Return the proposals of crops by what is decided; none while much of it is still being read."""
        decided, is_old = self._neighbours.at_once(rows, set_id)
        if is_old:
            self._start_reading(set_id)
        return {} if decided is None else propose.suggest(rows, decided, set_id, list(crop_ids), most)

    def decide(self, now_s: float, by: str, set_id: int, decisions: Sequence[Decision]) -> list[Outcome]:
        """Store decisions; when much has been decided, all open crops are ranked in the background.

        Raises:
            ConsoleError: there is no such set, or an item's texts cannot be stored.
        """
        with self._database.read() as rows:
            model = find_set(rows, set_id).model
        gallery = self.gallery_of(model)
        with self._database.write() as connection:
            known = self.items.known(connection, set_id, gallery)
            outcomes = store(connection, now_s, by, set_id, decisions, known)
            wants_rank = propose.wants_rank(connection, set_id)
        if wants_rank:
            self.start_ranking(set_id)
        return outcomes

    def start_proposing(self, set_id: int, *, again: bool = False) -> Task:
        """Look at the crops of a set in the background, again: also at those that have proposals already.

        Raises:
            ConsoleError: there is no such set.
        """
        with self._database.read() as rows:
            name = find_set(rows, set_id).name
        if again:
            with self._database.write() as connection:
                connection.execute(
                    "UPDATE crops SET proposals = NULL WHERE set_id = ? AND state = 'open' AND proposals IS NOT NULL",
                    (set_id,),
                )

        def work(progress: Progress) -> str:
            return propose.propose(self._database, self._models, self._neighbours, set_id, progress)

        return self._tasks.start(f"propose/{set_id}", f"Proposing names for {name}", work)

    def _start_reading(self, set_id: int) -> None:
        """Read the decided crops of a set in the background."""

        def work(progress: Progress) -> str:
            progress(0, 0)
            with self._database.read() as rows:
                self._neighbours.of(rows, set_id)
            return "the decided crops are read"

        self._tasks.start(f"neighbours/{set_id}", "Reading the decided crops", work)

    def start_ranking(self, set_id: int) -> Task:
        """Rank all open crops of a set in the background."""

        def work(progress: Progress) -> str:
            return propose.rank(self._database, self._neighbours, set_id, progress)

        return self._tasks.start(f"rank/{set_id}", "Ranking open crops by what you decided", work)

    def rank_now(self, set_id: int) -> None:
        """Rank all open crops, if something was decided since, and they are not too many for a request."""
        with self._database.read() as rows:
            count = counted(rows, set_id, "crops").get("open", 0)
        if count <= _RANKED_AT_ONCE:
            propose.rank(self._database, self._neighbours, set_id, lambda *_: None)

    def start_accepting(self, now_s: float, by: str, sample: accept.Sample, wrong: Sequence[int]) -> Task:
        """Name what a sample stands for, in the background."""

        def work(progress: Progress) -> str:
            return accept.accept(self._database, now_s, by, sample, wrong, self.items, progress)

        return self._tasks.start(f"accept/{sample.id}", f"Naming {len(sample.crops):,} crops", work)
