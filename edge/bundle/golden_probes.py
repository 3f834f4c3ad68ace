"""Verify a bundle on this machine: run its golden probes through the engine that will run it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from edge.bundle.bundle import Bundle, read_bundle
from edge.errors import BundleError
from edge.imaging.image import read_image
from edge.inference.engine import Backend
from edge.inference.open_models import OpenOptions
from edge.inference.postprocess import iou_matrix, unit_rows
from edge.inference.stages import Stages, load_stages
from edge.manifest import Probe, SceneProbe
from edge.telemetry.timing import Timings
from edge.types import Box

MIN_COSINE = 0.97  # between this machine's embedding of a probe and the packed one
MIN_OVERLAP = 0.7  # intersection over union of this machine's box and the packed one


@dataclass(frozen=True, slots=True)
class ProbeResult:
    """The result of one probe."""

    probe: Probe
    category: str | None  # as classified on this machine; None without a classifier
    cosine: float

    @property
    def passed(self) -> bool:
        """Whether this machine gives the same result as the machine that packed the bundle."""
        return self.category in (None, self.probe.category) and self.cosine >= MIN_COSINE

    def __str__(self) -> str:
        status = "ok" if self.passed else "FAILED"
        return f"{self.probe.path}: {status}, category {self.category}, cosine {self.cosine:.4f}"


@dataclass(frozen=True, slots=True)
class SceneProbeResult:
    """The result of one probe of the detector."""

    probe: SceneProbe
    overlaps: tuple[float, ...]  # of each packed box with this machine's best box of its label; 0: none

    @property
    def passed(self) -> bool:
        """Whether this machine finds what the machine found that packed the bundle."""
        return all(overlap >= MIN_OVERLAP for overlap in self.overlaps)

    def __str__(self) -> str:
        status = "ok" if self.passed else "FAILED"
        found = sum(overlap >= MIN_OVERLAP for overlap in self.overlaps)
        return f"{self.probe.path}: {status}, {found} of {len(self.overlaps)} objects found"


ProbeResults = list[ProbeResult | SceneProbeResult]


def run_probes(folder: Path, probes: list[Probe], stages: Stages) -> list[ProbeResult]:
    """Run probes through loaded models."""
    results = []
    for probe in probes:
        picture = read_image(folder / probe.path)
        box: Box = (0.0, 0.0, float(picture.shape[1]), float(picture.shape[0]))
        category = None
        if stages.classifier is not None:
            row = stages.classifier.classify(picture, [box], Timings())[0]
            category = stages.classifier.rank_categories(row)[0].name
        vector = stages.embedders[probe.category].embed(picture, [box], Timings())[0]
        expected = unit_rows(np.asarray(probe.embedding_i8, np.float32))
        results.append(ProbeResult(probe, category, float(vector @ expected)))
    return results


def run_scene_probes(folder: Path, probes: list[SceneProbe], stages: Stages) -> list[SceneProbeResult]:
    """Run probes of the detector through loaded models; without a detector, none passes."""
    results = []
    for probe in probes:
        found = stages.detector.detect([read_image(folder / probe.path)], Timings())[0] if stages.detector else []
        boxes = np.asarray([one.box_px for one in found], np.float32).reshape(-1, 4)
        overlap = iou_matrix(np.asarray(probe.boxes_px, np.float32).reshape(-1, 4), boxes)
        same = np.asarray([[label == one.label for one in found] for label in probe.labels], np.bool_)
        best = np.where(same.reshape(overlap.shape), overlap, 0.0).max(axis=1, initial=0.0)
        results.append(SceneProbeResult(probe, tuple(float(one) for one in best)))
    return results


def verify_bundle(folder: Path, backend: Backend = "auto", cache: Path | None = None) -> ProbeResults:
    """Check every hash of a bundle and run every probe.

    Args:
        folder: of the bundle.
        backend: which engine runs it.
        cache: folder of engines built on this machine; the bundle's folder when None.

    Raises:
        BundleError: a file was altered, or a probe fails on this machine.
        EngineError: a model cannot be loaded or run on this machine.
    """
    bundle = read_bundle(folder)
    return run_all_probes(bundle, load_stages(folder, bundle.manifest, backend, OpenOptions(cache=cache)))


def run_all_probes(bundle: Bundle, stages: Stages) -> ProbeResults:
    """Run every probe of a bundle through its loaded models.

    Raises:
        BundleError: one fails.
    """
    folder, manifest = bundle.folder, bundle.manifest
    results: ProbeResults = [
        *run_probes(folder, manifest.probes, stages),
        *run_scene_probes(folder, manifest.scene_probes, stages),
    ]
    if failed := [result for result in results if not result.passed]:
        raise BundleError(
            f"{folder}: {len(failed)} of {len(results)} probes failed on this machine; do not activate this bundle; "
            f"{failed[0]}"
        )
    return results
