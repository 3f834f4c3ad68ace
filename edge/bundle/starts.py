"""Counts starts that did not stay up, so that a pair that ends the process does not do so for ever.

A start is written down before its pair is loaded, and struck out when the device has run for a minute or was asked to
stop. A pair with five starts in a row that ended otherwise comes after the others; when all have five, they take turns.
For a pair on trial, which nothing but a proof speaks for yet, two are enough.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable, Iterator
from itertools import chain, islice
from pathlib import Path

from edge.bundle.pairs import Pair
from edge.durable import write_durably

log = logging.getLogger(__name__)

NAME = "starts.json"
LIMIT = 5
TRIAL_LIMIT = 2
STAYS_UP_S = 60.0
_MOST_PAIRS = 16


class Starts:
    """The unfinished starts of a device, by pair. A disk that cannot be written counts nothing."""

    def __init__(self, state_dir: Path) -> None:
        """Read the counts; a damaged file counts as none."""
        self._path = state_dir / NAME
        self._counts: dict[str, int] = {}
        try:
            found = json.loads(self._path.read_bytes())
            self._counts = {str(pair): min(int(count), 10**6) for pair, count in dict(found).items()}
        except FileNotFoundError:
            return
        except (OSError, ValueError, TypeError, OverflowError, RecursionError) as error:
            log.warning("%s: damaged, no start is counted: %s", self._path, error)

    def of(self, pair: Pair) -> int:
        """Return how many starts in a row with this pair did not stay up."""
        return self._counts.get(str(pair), 0)

    def in_order(self, pairs: Iterable[Pair], on_trial: Pair | None = None) -> Iterator[Pair]:
        """Yield the pairs: of those that were active before, the ones that did not stay up later; then the others.

        A first pair that comes first in any case is yielded before the others are looked for.

        Args:
            pairs: the best one first.
            on_trial: the active pair, if it is not confirmed yet.
        """
        left = iter(pairs)
        first = list(islice(left, 1))
        if first and first[0].proved and not self.gives_way(first[0], on_trial):
            yield first.pop()
        yield from sorted(
            chain(first, left), key=lambda pair: (not pair.proved, self.of(pair) // limit_of(pair, on_trial))
        )

    def gives_way(self, pair: Pair, on_trial: Pair | None = None) -> bool:
        """Return whether so many starts with a pair did not stay up that others come before it."""
        return self.of(pair) >= limit_of(pair, on_trial)

    def begin(self, pair: Pair) -> None:
        """Write down that the device starts with a pair."""
        self._counts = {str(pair): self.of(pair) + 1} | {k: n for k, n in self._counts.items() if k != str(pair)}
        self._write()

    def end_well(self, pair: Pair) -> None:
        """Strike out the starts with a pair: it stayed up, was asked to stop, or is activated again."""
        if self._counts.pop(str(pair), 0):
            self._write()

    def _write(self) -> None:
        kept = dict(list(self._counts.items())[:_MOST_PAIRS])
        try:
            write_durably(self._path, json.dumps(kept, indent=1).encode() + b"\n")
        except OSError as error:
            log.warning("%s: cannot count starts: %s", self._path, error.strerror or error)


def limit_of(pair: Pair, on_trial: Pair | None) -> int:
    """Return how many starts in a row may end early before a pair comes after others."""
    return TRIAL_LIMIT if pair == on_trial else LIMIT
