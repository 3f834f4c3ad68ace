"""The golden probes of a bundle while it is packed: those of the base bundle that still hold, and new ones."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from edge.bundle.bundle import Bundle
from edge.bundle.golden_probes import ProbeResults, run_probes, run_scene_probes
from edge.errors import QuantizeError
from edge.inference.stages import Detector, Stages
from edge.manifest.embedder import EmbedderModel
from edge.manifest.manifest import Probe, SceneProbe
from edge.manifest.stages import DetectorModel
from quantize.dataset import Data
from quantize.network_spec import Model
from quantize.probes.choose_probes import GalleryVectors, choose_probes, choose_scene_probes, embedding_i8

log = logging.getLogger(__name__)

_CROPS, _SCENES = 400, 50  # pictures to choose probes from
_P = TypeVar("_P", Probe, SceneProbe)


@dataclass(slots=True)
class PackedProbes:
    """The probes in the folder of a bundle."""

    folder: Path  # of the bundle
    crops: list[Probe] = field(default_factory=list)
    scenes: list[SceneProbe] = field(default_factory=list)

    def copy_from(self, base: Bundle, kept: Model) -> None:
        """Copy the probes of a model that the base bundle had and the new one keeps."""
        if isinstance(kept, EmbedderModel):
            self.crops += [self._copy(base, one) for one in base.manifest.probes if one.category in kept.categories]
        elif isinstance(kept, DetectorModel):
            self.scenes += [self._copy(base, one) for one in base.manifest.scene_probes]

    def _copy(self, base: Bundle, probe: _P) -> _P:
        path = f"probes/{base.manifest.bundle_id}-{Path(probe.path).name}"
        shutil.copyfile(base.path(probe.path), self._place(path))
        return probe.model_copy(update={"path": path})

    def _place(self, path: str) -> Path:
        place = self.folder / path
        place.parent.mkdir(exist_ok=True)
        return place

    def run(self, stages: Stages) -> ProbeResults:
        """Run the probes through the packed models."""
        return [*run_probes(self.folder, self.crops, stages), *run_scene_probes(self.folder, self.scenes, stages)]

    def drop_failing(self, stages: Stages) -> None:
        """Drop the probes that the packed models answer otherwise: a new classifier may name another category."""
        failed = [result for result in self.run(stages) if not result.passed]
        for result in failed:
            log.warning("dropped a probe of the base bundle: %s", result)
            (self.folder / result.probe.path).unlink()
        dropped = {result.probe.path for result in failed}
        self.crops = [probe for probe in self.crops if probe.path not in dropped]
        self.scenes = [probe for probe in self.scenes if probe.path not in dropped]

    def add(
        self, stages: Stages, detectors: Sequence[Detector], galleries: dict[str, GalleryVectors], data: Data
    ) -> None:
        """Add probes from held-out crops and scenes, whichever there are, else from the gallery's crops.

        Args:
            stages: the packed models.
            detectors: every form of a new detector, the one that ships first; empty: there is no new one.
            galleries: gallery of each category with a new embedder.
            data: crops and scenes.

        Raises:
            QuantizeError: no crop is predicted correctly, or there is no probe at all.
        """
        if detectors:
            scenes = data.scenes_for(data.held_out_split)[:_SCENES]
            for number, scene in enumerate(choose_scene_probes(scenes, detectors)):
                path = f"probes/scene-{number:02}.jpg"
                self._place(path).write_bytes(scene.jpeg)
                boxes, labels = [one.box_px for one in scene.sure], [one.label for one in scene.sure]
                self.scenes.append(SceneProbe(path=path, boxes_px=boxes, labels=labels))
        pool, spare = data.probe_crops(galleries, _CROPS), data.spare_probe_crops(galleries, _CROPS)
        found = choose_probes(pool, stages, galleries, len(self.crops), spare) if pool or spare else []
        for number, crop in enumerate(found):
            path = f"probes/{number:02}.png"
            self._place(path).write_bytes(crop.png)
            vector = embedding_i8(crop.vector)
            category, item = crop.sample.category, crop.sample.item
            self.crops.append(Probe(path=path, category=category, item_id=item, embedding_i8=vector))
        if not self.crops and not self.scenes:
            raise QuantizeError(_why_none(stages, data))
        if bare := sorted(set(stages.embedders) - {probe.category for probe in self.crops}):
            log.warning("no probe checks the embedders of %s; for them, %s", ", ".join(bare), _index_for(bare, data))


def _why_none(stages: Stages, data: Data) -> str:
    """Say which data probes need."""
    needs = []
    if stages.embedders:
        needs.append(_index_for(sorted(stages.embedders), data))
    if stages.detector is not None:
        needs.append(
            f"give --scenes with pictures of split {data.held_out_split!r} in which the detector is sure of an object "
            f"(there are {len(data.scenes)} pictures, of the splits {data.splits('detector')})"
        )
    wanted = "; or ".join(needs) or "give a detector or an embedder"
    return f"probes: there are none; {wanted}; or pack with --no-probes"


def _index_for(categories: list[str], data: Data) -> str:
    return (
        f"give --index with pictures of {', '.join(categories)} of split {data.held_out_split!r}, and of the same "
        f"items in split {' or '.join(data.gallery_splits)} (there are the splits {data.splits('embedder')})"
    )
