"""Fits the whitening of new embedders on labelled pictures, and keeps it where it finds more held-out pictures.

Whitening weakens the directions in which the pictures of one item differ (within-class covariance normalisation, Hatch
and Stolcke 2006), and takes away the mean of photos and of catalogue pictures, see `edge.inference.postprocess`.

Rules this module keeps:
1. It is fitted on the photos of the gallery. Where these show most items once, the calibration split joins them.
2. It is judged on held-out pictures of items that the fit did not see (five folds of the items), because a gallery gets
   items that no bundle was fitted on. The search is that of a device: the whole gallery, shrunk to its centroids.
3. `auto` keeps it if the 95 % interval of the change of Recall@1 is above zero.
"""

from __future__ import annotations

import logging
import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from edge.durable import sha256_of
from edge.errors import QuantizeError
from edge.gallery.item_vectors import shrink_to_centroid
from edge.inference.postprocess import WhiteningMap
from edge.inference.stages import Stages
from edge.manifest.embedder import EmbedderModel, Head, Whitening
from edge.manifest.space_id import whitened_space_id
from edge.types import FloatArray
from quantize.build_network import Network
from quantize.dataset import Data
from quantize.network_spec import Model
from quantize.pictures import Sample, of_splits
from quantize.run_forms import embed_samples

log = logging.getLogger(__name__)

Whiten = Literal["off", "auto", "on"]
FOLDS = 5
_MIN_DIFFERENCES = 10  # pictures beyond the first of their item: fewer say nothing of how pictures differ
_FEW, _MANY = 5.0, 10.0  # pictures of an item, as in trainer.tasks.general_embedder
_SHRINKAGE = (10.0, 1.0)  # of the covariance, in mean variances: with few pictures, with many
_DRAWS = 1000
_LARGE_DIM = 2048  # above it, the inverse root of a covariance takes half a minute


@dataclass(frozen=True, slots=True)
class LabelledVectors:
    """The vectors of crops, with what they show."""

    vectors: FloatArray  # (n, dim), rows of unit length
    items: NDArray[np.str_]  # (n,)
    plain: NDArray[np.bool_]  # (n,) one object on a plain background

    @classmethod
    def of(cls, vectors: FloatArray, crops: Sequence[Sample]) -> LabelledVectors:
        """Label the vectors of crops."""
        items = np.asarray([f"{crop.category}\n{crop.item}" for crop in crops], np.str_)
        return cls(vectors, items, np.asarray([crop.plain for crop in crops], np.bool_))

    def select(self, rows: NDArray[np.bool_]) -> LabelledVectors:
        """Return some of the rows."""
        return LabelledVectors(self.vectors[rows], self.items[rows], self.plain[rows])


@dataclass(frozen=True, slots=True)
class Gain:
    """Recall@1 of held-out pictures, each searched with a map that was fitted without its item."""

    before: float
    after: float
    change_95: tuple[float, float]  # 95 % interval of after - before, bootstrap over pictures
    pictures: int

    def row(self) -> dict[str, Any]:
        """Return the measurement as the manifest stores it."""
        return {
            "recall_at_1": round(self.before, 4),
            "recall_at_1_whitened": round(self.after, 4),
            "change_95": [round(edge, 4) for edge in self.change_95],
            "pictures": self.pictures,
        }


def whiten_embedders(
    models: Sequence[Model], networks: Sequence[Network], stages: Stages, data: Data, folder: Path, how: Whiten
) -> tuple[list[Model], dict[str, dict[str, Any]]]:
    """Fit the whitening of each new embedder with the forms that ship.

    Args:
        models: of the bundle: first the new networks, in their order.
        networks: the new ones.
        stages: loaded models of the bundle, not whitened.
        data: crops to fit and measure on.
        folder: of the bundle; the maps are written into it.
        how: `on` keeps every map, `auto` those that pay.

    Returns:
        all models, and by network what was measured, for the manifest.

    Raises:
        QuantizeError: `on`, and there are too few pictures to fit a map on.
    """
    finished, rows = list(models), {}
    for number, network in enumerate(networks):
        model = models[number]
        if not isinstance(model, EmbedderModel) or not model.categories:
            continue
        stage = stages.embedders[model.categories[0]]
        fitted_on, gallery, held_out = (
            LabelledVectors.of(embed_samples(stage, crops), crops) for crops in _crops(network, data)
        )
        row, fitted = _decide(fitted_on, gallery, held_out, model.gathering, how)
        rows[network.name] = row
        log.info("%s: whitening %s", network.name, row)
        if fitted is None and how == "on":
            raise QuantizeError(f"{network.name}: --whiten on: {row['why']}")
        if fitted is not None:
            finished[number] = _whitened(model, fitted, folder, f"models/{network.name}.whitening.bin")
    return finished, rows


def _decide(
    fitted_on: LabelledVectors, gallery: LabelledVectors, held_out: LabelledVectors, gathering: float, how: Whiten
) -> tuple[dict[str, Any], WhiteningMap | None]:
    """Fit and measure one map; None where it is not kept."""
    photos = fitted_on.select(~fitted_on.plain)
    differences = len(photos.items) - len(set(photos.items))
    if differences < _MIN_DIFFERENCES:
        needed = f"{_MIN_DIFFERENCES} photos beyond the first of their item are needed, found {differences}"
        return {"kept": False, "why": f"{needed}; give more labelled photos of each item"}, None
    gain = measure_gain(fitted_on, gallery, held_out, gathering)
    row = {"shrinkage": shrinkage_for(photos.items), **(gain.row() if gain else {})}
    if how == "auto" and (gain is None or gain.change_95[0] <= 0):
        why = "no held-out picture shows an item of the gallery" if gain is None else "no sure gain on items left out"
        return row | {"kept": False, "why": why}, None
    return row | {"kept": True, "why": "asked for" if how == "on" else "a gain on items left out"}, fit_map(fitted_on)


def _crops(network: Network, data: Data) -> tuple[list[Sample], list[Sample], list[Sample]]:
    """Return the crops to fit on, those of the gallery, and the held-out ones."""
    gallery, held_out = data.gallery_crops(network.spec), data.held_out_crops(network.spec)
    photos = Counter((one.category, one.item) for one in gallery if not one.plain)
    shown = {(one.category, one.item) for one in gallery}
    if 2 * sum(count > 1 for count in photos.values()) >= len(shown):
        return gallery, gallery, held_out
    further = of_splits(data.crops_for(network.spec), {data.calibration_split})
    known = set(gallery)
    further = [one for one in further if one not in known]
    return [*gallery, *data.check.first(further, len(further), "pictures to whiten with")], gallery, held_out


def shrinkage_for(items: NDArray[np.str_]) -> float:
    """Return how many mean variances join the covariance: more for few pictures of each item."""
    counts = np.unique(items, return_counts=True)[1]
    few = float(np.clip((_MANY - np.median(counts)) / (_MANY - _FEW), 0.0, 1.0))
    return _SHRINKAGE[1] + few * (_SHRINKAGE[0] - _SHRINKAGE[1])


def fit_map(pictures: LabelledVectors) -> WhiteningMap:
    """Fit a map: the inverse root of the shrunk covariance of photos about the mean of their item.

    Args:
        pictures: photos of several items, two or more of some; plain pictures give the offset of their side alone.
    """
    photos, plain = pictures.select(~pictures.plain), pictures.select(pictures.plain)
    x = photos.vectors.astype(np.float64)
    _, number = np.unique(photos.items, return_inverse=True)
    counts = np.bincount(number)
    means = np.zeros((len(counts), x.shape[1]))
    np.add.at(means, number, x)
    means /= counts[:, None]
    matrix = _inverse_root(x - means[number], max(1, len(x) - len(counts)), shrinkage_for(photos.items))
    centre = means.mean(axis=0)
    catalogue = plain.vectors.astype(np.float64).mean(axis=0) if len(plain.items) else centre
    offsets = np.stack([-matrix @ centre, -matrix @ catalogue])
    return WhiteningMap(matrix.astype(np.float32), offsets.astype(np.float32))


def _inverse_root(within: NDArray[np.float64], freedom: int, shrinkage: float) -> NDArray[np.float64]:
    """Return the inverse root of a shrunk covariance, scaled so that the mean variance becomes one: (dim, dim).

    Args:
        within: (n, dim) differences from the mean of their item.
        freedom: degrees of freedom of their covariance.
        shrinkage: mean variances that are added to every direction.
    """
    dim = within.shape[1]
    variance = float((within**2).sum()) / freedom / dim
    if variance < 1e-12:  # the pictures of each item are the same: nothing is known of how they differ
        return np.eye(dim)
    if len(within) < dim:  # the directions in which they differ are fewer, and cheaper to find
        values, sides = np.linalg.eigh(within @ within.T / freedom)
        values, sides = values[values > 1e-9 * variance], sides[:, values > 1e-9 * variance]
        axes = within.T @ sides / np.sqrt(values * freedom)
    else:
        values, axes = np.linalg.eigh(within.T @ within / freedom)
    added = shrinkage * variance
    weaker = 1 / np.sqrt(values.clip(0.0) + added) - 1 / math.sqrt(added)
    root: NDArray[np.float64] = math.sqrt(variance) * ((axes * weaker) @ axes.T + np.eye(dim) / math.sqrt(added))
    return root


def measure_gain(
    fitted_on: LabelledVectors, gallery: LabelledVectors, held_out: LabelledVectors, gathering: float, seed: int = 0
) -> Gain | None:
    """Search held-out pictures before whitening, and with maps that were fitted without their item.

    Args:
        fitted_on: pictures to fit on.
        gallery: pictures to search in.
        held_out: pictures to search for.
        gathering: how far gallery vectors shrink to their centroid.
        seed: of the folds and of the bootstrap.

    Returns:
        the change; None if no held-out picture shows an item of the gallery.
    """
    held_out = held_out.select(np.isin(held_out.items, gallery.items))
    if not len(held_out.items):
        return None
    rng = np.random.default_rng(seed)
    names = np.unique(held_out.items)
    folds = 2 if gallery.vectors.shape[1] > _LARGE_DIM else FOLDS
    fold_of = dict(zip(names.tolist(), (rng.permutation(len(names)) % folds).tolist(), strict=True))
    before, after = _is_right(held_out, gallery, gathering), np.zeros(len(held_out.items), np.bool_)
    for fold in range(folds):
        asked = np.array([fold_of[item] == fold for item in held_out.items.tolist()])
        rest = fitted_on.select(np.array([fold_of.get(item) != fold for item in fitted_on.items.tolist()]))
        if not asked.any() or not (~rest.plain).any():
            continue
        mapped = fit_map(rest)
        after[asked] = _is_right(_mapped(mapped, held_out.select(asked)), _mapped(mapped, gallery), gathering)
    change = after.astype(np.float64) - before
    means = change[rng.integers(len(change), size=(_DRAWS, len(change)))].mean(axis=1)
    low, high = np.quantile(means, [0.025, 0.975])
    return Gain(float(before.mean()), float(after.mean()), (float(low), float(high)), len(change))


def _mapped(whitening: WhiteningMap, one: LabelledVectors) -> LabelledVectors:
    return LabelledVectors(whitening.map(one.vectors, plain=one.plain.tolist()), one.items, one.plain)


def _is_right(queries: LabelledVectors, gallery: LabelledVectors, gathering: float) -> NDArray[np.bool_]:
    searched = shrink_to_centroid(gallery.vectors, gallery.items.tolist(), gathering)
    nearest = (queries.vectors @ searched.T).argmax(axis=1)
    right: NDArray[np.bool_] = gallery.items[nearest] == queries.items
    return right


def _whitened(model: EmbedderModel, fitted: WhiteningMap, folder: Path, name: str) -> EmbedderModel:
    """Write the map into the bundle, and return the model with it."""
    (folder / name).write_bytes(fitted.to_bytes())
    heads = [Head(name="whitened", dim=len(fitted.matrix))]
    space_id = whitened_space_id(model.space_id, sha256_of(folder / name))
    whitening = Whitening(file=name, parts=model.heads)
    return model.model_copy(update={"heads": heads, "whitening": whitening, "space_id": space_id})
