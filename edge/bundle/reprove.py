"""Chooses the engines again, in the background, when the choice of a running device no longer fits the machine.

Rules this module keeps:
1. What serves goes on with the old choice, or the default, until the new one is written down; then the device swaps.
2. One proof runs at a time, in a child process at low priority. One that failed is not repeated until the bundle or the
   machine changes, or the device starts again.
3. A state folder that cannot be written chooses nothing: the default is cheap and always the same.
"""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from edge.bundle.bundle import Bundle, read_bundle
from edge.bundle.layout import identity
from edge.bundle.prove import Proof, ProofOptions, prove_bundle, remember
from edge.config.schema import TensorRtConfig
from edge.errors import FinesightError
from edge.inference.engine import Backend
from edge.inference.engine_choice import EngineChoice, choice_path, read_choice
from edge.inference.machine import changes, describe_machine
from edge.types import Counts

log = logging.getLogger(__name__)

ProveBundle = Callable[[Path, None, ProofOptions], Proof]


def why_again(choice: EngineChoice | None, backend: Backend, machine: dict[str, str]) -> str | None:
    """Return why the engines of a bundle must be chosen again; None if the choice fits.

    Args:
        choice: that was written down; None: there is none.
        backend: as configured.
        machine: as `describe_machine` returns it.
    """
    if choice is None:
        return "no choice was made on this machine"
    if choice.backend not in ("auto", backend):
        return f"only engine {choice.backend} was tried"
    if changed := changes(choice.machine, machine):
        return f"these changed: {changed}"
    return f"these were not tried yet: {', '.join(choice.pending)}" if choice.pending else None


class EngineProver:
    """Watches the choice of what serves; every method is cheap and belongs to the frame loop's thread."""

    def __init__(
        self,
        state_dir: Path,
        options: ProofOptions,
        counts: Counts,
        prove: ProveBundle = prove_bundle,
        machine: Callable[[int, TensorRtConfig | None], dict[str, str]] = describe_machine,
        prepare: Callable[[Bundle], None] = lambda _: None,
    ) -> None:
        """Start nothing yet.

        Args:
            state_dir: of the device.
            options: as configured.
            counts: `engine_choices` by result.
            prove: proves a bundle, in a child process.
            machine: describes this machine.
            prepare: builds what the trial of a bundle needs and says how far it is; returns when that is done.
        """
        self._state_dir, self._counts = state_dir, counts
        self._options = replace(options, choose=True, build=True)
        self._prove, self._machine, self._prepare = prove, machine, prepare
        self._seen: tuple[Path, tuple[int, int] | None] | None = None
        self._thread: threading.Thread | None = None

    def check(self, bundle: Path) -> None:
        """Choose the engines of a bundle again if that is due; return at once.

        Args:
            bundle: folder of the bundle that serves.
        """
        seen = (bundle, identity(bundle))
        if seen == self._seen or self.is_running:
            return
        self._seen = seen
        if not os.access(self._state_dir, os.W_OK):
            log.info("%s: cannot be written, so no engines are chosen", self._state_dir)
            return
        self._thread = threading.Thread(target=self._choose, args=(bundle,), name="engine-prover", daemon=True)
        self._thread.start()

    @property
    def is_running(self) -> bool:
        """Whether engines are being tried."""
        return self._thread is not None and self._thread.is_alive()

    def _choose(self, bundle: Path) -> None:
        try:
            before = read_choice(choice_path(self._state_dir, read_bundle(bundle, verify=False).manifest))
            why = why_again(before, self._options.backend, self._machine(self._options.threads, self._options.tensorrt))
            if why is None:
                return
            log.info("choosing the engines of %s in the background: %s", bundle, why)
            self._prepare(read_bundle(bundle, verify=False))
            proof = self._prove(bundle, None, self._options)
            if proof.choice is None:
                self._counts.add("engine_choices", result="failed")
                return
            choice = remember(self._state_dir, bundle, proof.choice)
        except FinesightError as error:
            self._counts.add("engine_choices", result="failed")
            log.error("%s; what serves stays", error)  # noqa: TRY400  the message says it all
            return
        except Exception:
            self._counts.add("engine_choices", result="failed")
            log.exception("choosing the engines failed; what serves stays")
            return
        is_same = before is not None and before.decisions() == choice.decisions()
        self._counts.add("engine_choices", result="kept" if is_same else "changed")
        log.info("the engines are chosen: %s", "as before" if is_same else "new ones, which are loaded now")
