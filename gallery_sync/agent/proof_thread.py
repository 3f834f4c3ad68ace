"""Runs a proof beside the loop of the agent, so that checks and urgent deletions go on for as long as it takes.

The thread owns the child process that proves: the child ends with it, and it ends with the agent.
"""

from __future__ import annotations

import threading
from pathlib import Path

from edge.bundle.pairs import Pair
from edge.bundle.prove import Prove


class ProofThread:
    """One proof of one pair."""

    def __init__(self, pair: Pair, prove: Prove, bundle: Path, gallery: Path) -> None:
        """Start it.

        Args:
            pair: that is tried.
            prove: tries it in a child process.
            bundle: folder.
            gallery: folder.
        """
        self.pair = pair
        self._lines: list[str] = []
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, args=(prove, bundle, gallery), name="proof", daemon=True)
        self._thread.start()

    def _run(self, prove: Prove, bundle: Path, gallery: Path) -> None:
        try:
            self._lines = prove(bundle, gallery)
        except BaseException as error:  # noqa: BLE001  whoever asks for the result gets it
            self._error = error

    def has_ended(self, wait_s: float) -> bool:
        """Wait for the end, for so many seconds at most; return whether it has come."""
        self._thread.join(wait_s)
        return not self._thread.is_alive()

    def result(self) -> list[str]:
        """Return a line for each probe, of a proof that has ended.

        Raises:
            FinesightError: the pair must not serve.
        """
        if self._error is not None:
            raise self._error
        return self._lines
