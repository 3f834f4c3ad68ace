"""Prove a bundle on this machine: its golden probes through this machine's engine."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from edge.bundle.active_pointer import current, staged
from edge.bundle.bundle import read_bundle
from edge.bundle.slots import read_slots, slot_folder
from edge.errors import BundleError
from edge.imaging.image import read_image
from edge.inference.engine import Backend
from edge.inference.postprocess import unit_rows
from edge.inference.stages import Stages, load_stages
from edge.manifest import Probe
from edge.telemetry.timing import Timings
from edge.types import Box

MIN_COSINE = 0.97  # between this machine's embedding of a probe and the packed one


@dataclass(frozen=True, slots=True)
class Proof:
    """How one probe went."""

    probe: Probe
    category: str | None  # what this machine answered; None without a classifier
    cosine: float

    @property
    def passed(self) -> bool:
        """Whether this machine answers as the packing machine did."""
        return self.category in (None, self.probe.category) and self.cosine >= MIN_COSINE

    def __str__(self) -> str:
        verdict = "ok" if self.passed else "FAILED"
        return f"{self.probe.path}: {verdict}, category {self.category}, cosine {self.cosine:.4f}"


def prove_stages(folder: Path, probes: list[Probe], stages: Stages) -> list[Proof]:
    """Run probes through loaded models."""
    proofs = []
    for probe in probes:
        picture = read_image(folder / probe.path)
        box: Box = (0.0, 0.0, float(picture.shape[1]), float(picture.shape[0]))
        category = None
        if stages.classifier is not None:
            row = stages.classifier.classify(picture, [box], Timings())[0]
            category = stages.classifier.name(row)[0].name
        vector = stages.embedders[probe.category].embed(picture, [box], Timings())[0]
        expected = unit_rows(np.asarray(probe.embedding_i8, np.float32))
        proofs.append(Proof(probe, category, float(vector @ expected)))
    return proofs


def prove(folder: Path, backend: Backend = "auto") -> list[Proof]:
    """Check every hash of a bundle and run every probe.

    Raises:
        BundleError: a file is altered, or a probe is answered differently here.
        EngineError: a model cannot be loaded or run here.
    """
    bundle = read_bundle(folder)
    proofs = prove_stages(folder, bundle.manifest.probes, load_stages(folder, bundle.manifest, backend))
    if failed := [proof for proof in proofs if not proof.passed]:
        raise BundleError(f"{folder}: found {len(failed)} of {len(proofs)} probes failed, expected none; {failed[0]}")
    return proofs


def prove_slot(state_dir: Path, name: str | None, backend: Backend = "auto") -> None:
    """Prove the bundle that an activation would switch to, while the serving one goes on.

    Args:
        state_dir: of the device.
        name: a slot or a bundle id; None: what waits to be activated, else what serves.
        backend: which engine runs it.

    Raises:
        BundleError: a file is altered, or a probe is answered differently here.
        EngineError: a model cannot be loaded or run here.
    """
    if name is None:
        pointer = staged(state_dir) or current(state_dir)
        name = pointer.slot if pointer else None
    for slot in read_slots(state_dir):
        if name in (slot.name, slot.bundle_id):
            prove(slot_folder(state_dir, slot.name), backend)
