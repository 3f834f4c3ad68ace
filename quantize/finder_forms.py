"""The INT8 form of a finder: trunk and conversion in INT8 for CPUs, kept only if the device's search still locates.

Rules this module keeps:
1. The gate is the share of searches whose best box is right, INT8 over FP32, through the device's own search.
2. The trunk and the conversion are tried together, then the trunk alone. A finder that fails a gate ships FP32; it
   never forbids packing. One that is accurate, but slow on this CPU, can be packed beside FP32 (`--keep-both`).
3. The first convolution of the conversion stays in FP32: cosines and scene features, which it reads, differ in range.
"""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import onnx
from numpy.typing import NDArray

from edge.finder.correlate import Query, heat_maps
from edge.finder.finder import Finder
from edge.finder.query import lay_out_query, object_mask
from edge.inference.engine import open_engine
from edge.inference.postprocess import iou_matrix
from edge.inference.preprocess import to_batch, to_canvas
from edge.manifest.stages import FinderModel
from edge.telemetry.timing import Timings
from edge.types import Box, FloatArray, Image
from quantize.compare_forms import cpu_description
from quantize.dataset import Data
from quantize.forms import calibrate, ort_u8
from quantize.forms.write_forms import Calibration, Progress, finish_int8, write_ort_u8
from quantize.gates import Gate, check_gate, check_measurement
from quantize.latency import RUNS, interleaved_ms
from quantize.network_spec import Spec, conversion_int8_path, conversion_path, model_entry
from quantize.pictures import Picture, Sample

log = logging.getLogger(__name__)

SEARCHES = 150  # most searches that the forms are compared on
QUERY_PICTURES = 3  # of each object
_CALIBRATION_SEARCHES = 48
_CALIBRATION_RANGE = 99.999  # percentile of the conversion's activations
_RIGHT_IOU = 0.5


@dataclass(frozen=True, slots=True)
class FinderSearch:
    """One search: a scene, pictures of an object, and where it is."""

    scene: Path
    queries: tuple[Sample, ...]  # pictures of the object; each with its box
    true_px: FloatArray  # (n, 4)


@dataclass(frozen=True, slots=True)
class FinderForms:
    """What was made of a finder."""

    int8: Path | None  # the trunk, if its gate of accuracy holds; None: there is only FP32
    ships_int8: bool
    why: str
    evaluation: dict[str, Any]
    record: dict[str, Any]


def searches_in(data: Data, split: str, most: int) -> list[FinderSearch]:
    """List searches for the named objects of a split's scenes, by pictures of them elsewhere.

    The pictures are crops of the index or of other scenes. An object without any is searched for by its own picture,
    which is easier; both forms get the same searches.
    """
    scenes = {scene.path: scene for scene in data.scenes_for(split)}
    by_item: dict[tuple[str, str], list[Sample]] = defaultdict(list)
    for sample in [*data.scene_crops, *data.samples]:
        by_item[sample.category, sample.item].append(sample)
    there: dict[tuple[Path, str, str], list[Sample]] = defaultdict(list)
    for sample in data.scene_crops:
        if sample.path in scenes:
            there[sample.path, sample.category, sample.item].append(sample)
    found = []
    for (path, category, item), shown in there.items():
        elsewhere = [one for one in by_item[category, item] if one.path != path and _usable(data, one)]
        boxes = np.asarray([one.box_px for one in map(data.check.usable, shown) if one is not None], np.float32)
        if len(boxes):
            found.append(FinderSearch(path, tuple((elsewhere or shown[:1])[:QUERY_PICTURES]), boxes.reshape(-1, 4)))
    step = max(1, len(found) // most)
    return found[::step][:most]


def _usable(data: Data, sample: Sample) -> bool:
    return data.check.usable(sample) is not None


def build_finder_forms(
    name: str, spec: Spec, fp32: Path, data: Data, *, min_speedup: float, saturates: bool, progress: Progress[Picture]
) -> FinderForms:
    """Write the INT8 form of a finder beside its FP32 model, and choose what ships.

    Args:
        name: of the network in the bundle.
        spec: of the finder.
        fp32: its trunk; the conversion lies beside it.
        data: scenes with named boxes.
        min_speedup: how much faster a search in INT8 must be.
        saturates: whether INT8 must be exact on CPUs without an 8-bit dot product.
        progress: wraps the calibration pictures.

    Raises:
        QuantizeError: a network cannot be quantised.
        EngineError: a form cannot be run.
    """
    int8, conversion8 = fp32.with_name(f"{name}.ort-u8.onnx"), conversion_int8_path(fp32)
    conversion8.unlink(missing_ok=True)
    seen = searches_in(data, data.calibration_split, _CALIBRATION_SEARCHES)
    judged = searches_in(data, data.held_out_split, SEARCHES)
    if not seen or not judged:
        return FinderForms(None, False, "no scenes with boxes to calibrate and to compare INT8 on", {}, {})
    exact = _open(spec, fp32, conversion_path(fp32))
    record = _write_trunk(spec, fp32, int8, exact, data, seen, saturates=saturates, progress=progress)
    _write_conversion(conversion_path(fp32), conversion8, exact, seen, saturates=saturates)
    wanted = located(exact, judged)
    for conversion in (conversion8, conversion_path(fp32)):
        got = located(_open(spec, int8, conversion), judged)
        ms = _times_ms(spec, exact, [(fp32, conversion_path(fp32)), (int8, conversion)], judged[0])
        gates = [located_gate(wanted, got), check_measurement("latency", ms[1] / ms[0], RUNS, limit=1 / min_speedup)]
        table = _table(wanted, got, ms, gates) | {"conversion": "int8" if conversion == conversion8 else "fp32"}
        if gates[0].holds:
            break
    accurate = gates[0].holds
    if conversion != conversion8 or not accurate:
        conversion8.unlink(missing_ok=True)
    failed = [str(gate) for gate in gates if not gate.holds]
    why = f"INT8 searches at {ms[0] / ms[1]:.2f}x the speed of FP32; {'; '.join(failed) or 'gates hold'}"
    log.info("%s: %s", name, why)
    return FinderForms(int8 if accurate else None, not failed, why, table, record)


def _open(spec: Spec, trunk: Path, conversion: Path) -> Finder:
    model = cast("FinderModel", model_entry(spec, {"fp32": trunk.name}, "fp32", "", conversion.name))
    return Finder(model, open_engine(trunk, "onnxruntime"), open_engine(conversion, "onnxruntime"))


def _picture(sample: Sample) -> tuple[Image, Box | None]:
    """Return a query picture, with the box of the object in it; None: whatever stands out."""
    picture = sample.crop(0.0)
    return (picture, None) if sample.box_px is None else (picture, (0.0, 0.0, *picture.shape[1::-1]))


def _queries(finder: Finder, search: FinderSearch) -> list[Query]:
    pictures = [_picture(one) for one in search.queries]
    return [finder.make_query(picture, object_mask(picture, box), Timings()) for picture, box in pictures]


def located(finder: Finder, searches: Sequence[FinderSearch]) -> NDArray[np.bool_]:
    """Return whether the best box of each search is right, at IoU 0.5."""
    found = []
    for search in searches:
        queries = _queries(finder, search)
        features = finder.scene_features(_scene(search), Timings())
        heat = finder.heat_map(features, queries, Timings())
        boxes = finder.find_boxes(features, heat, queries, Timings(), min_score=0.0)[:1]
        best = np.asarray([one.box_px for one in boxes], np.float32).reshape(-1, 4)
        found.append(bool(iou_matrix(best, search.true_px).max(initial=0.0) >= _RIGHT_IOU))
    return np.asarray(found, np.bool_)


def _scene(search: FinderSearch) -> Image:
    return Sample(search.scene, "", "", "", "").crop(0.0)


def located_gate(wanted: NDArray[np.bool_], got: NDArray[np.bool_]) -> Gate:
    """Compare the shares of located objects, with the standard error of their paired difference."""
    share = max(float(wanted.mean()), 1e-9)
    lost = got.astype(np.float64) - wanted
    error = float(lost.std()) / np.sqrt(len(lost)) / share
    return check_gate("located", float(got.mean()) / share, len(wanted), error)


def _table(
    wanted: NDArray[np.bool_], got: NDArray[np.bool_], ms: Sequence[float], gates: Sequence[Gate]
) -> dict[str, Any]:
    metrics = {
        "located": {"fp32": round(float(wanted.mean()), 5), "int8": round(float(got.mean()), 5)},
        "latency_ms": {"fp32": round(ms[0], 4), "int8": round(ms[1], 4)},
    }
    measured_on = {
        "cpu": cpu_description(), "engine": "onnxruntime", "threads": 1, "batch": 1, "runs": RUNS, "clock": "CPU time",
    }  # fmt: skip
    return {
        "images": len(wanted),
        "metrics": metrics,
        "gates": {gate.name: gate.row() for gate in gates},
        "speedup": round(ms[0] / ms[1], 3),
        "measured_on": measured_on,
    }


def _write_trunk(
    spec: Spec, fp32: Path, int8: Path, exact: Finder, data: Data, seen: Sequence[FinderSearch],
    *, saturates: bool, progress: Progress[Picture],
) -> dict[str, Any]:  # fmt: skip
    """Write the trunk's INT8 form, calibrated on scenes and on the canvases of queries; return its provenance."""
    prepared = int8.with_suffix(".prepared.onnx")
    scenes = data.scenes_for(data.calibration_split)

    def batches() -> Iterator[NDArray[np.generic]]:
        yield from calibrate.preprocessed_batches(progress(scenes, f"calibrate {int8.name}"), spec.preprocess)
        for search in seen:
            picture, box = _picture(search.queries[0])
            canvas, _ = lay_out_query(picture, object_mask(picture, box), exact.model.shape, spec.preprocess)
            yield to_batch(spec.preprocess, [canvas])

    try:
        ort_u8.prepare(fp32, prepared)
        histograms = calibrate.collect_histograms(prepared, batches())
        calibration = Calibration(fp32, prepared, spec.preprocess, scenes, histograms)
        return calibration.record() | write_ort_u8(calibration, spec, int8, saturates=saturates)
    finally:
        prepared.unlink(missing_ok=True)


def _write_conversion(fp32: Path, int8: Path, exact: Finder, seen: Sequence[FinderSearch], *, saturates: bool) -> None:
    """Write the conversion's INT8 form, calibrated on the heat maps of searches."""
    prepared = int8.with_suffix(".prepared.onnx")
    try:
        ort_u8.prepare(fp32, prepared)
        histograms = calibrate.collect_histograms(prepared, _maps_of(exact, seen))
        ranges = {name: one.range(_CALIBRATION_RANGE) for name, one in histograms.items()}
        means = {name: mean for name, one in histograms.items() if (mean := one.channel_means) is not None}
        graph = onnx.load(str(prepared)).graph
        first = next(node.name for node in graph.node if node.op_type == "Conv")
        ort_u8.write_int8(prepared, ranges, means, int8, saturates=saturates, keep=[first])
        finish_int8(int8)
    finally:
        prepared.unlink(missing_ok=True)


def _maps_of(exact: Finder, searches: Iterable[FinderSearch]) -> Iterator[NDArray[np.generic]]:
    """Yield what the conversion reads in each search, a batch of one."""
    shape, spec = exact.model.shape, exact.model.preprocess
    for search in searches:
        features = exact.scene_features(_scene(search), Timings())
        maps = heat_maps(features.representation, _queries(exact, search)[0], shape, spec)
        guide = [] if features.guide is None else [features.guide]
        yield np.concatenate([maps, *guide])[None]


def _times_ms(
    spec: Spec, exact: Finder, forms: Sequence[tuple[Path, Path]], search: FinderSearch
) -> tuple[float, float]:
    """Return the milliseconds of trunk and conversion of both forms."""
    canvas, _ = to_canvas(spec.preprocess, _scene(search))
    batches = to_batch(spec.preprocess, [canvas]), next(_maps_of(exact, [search]))
    parts = [
        interleaved_ms([open_engine(form[number], "onnxruntime") for form in forms], batch)
        for number, batch in enumerate(batches)
    ]
    return parts[0][0] + parts[1][0], parts[0][1] + parts[1][1]
