"""Writes the kit of a bundle: what the compilers of other accelerators take, and what proves their result.

Rules this module keeps:
1. Every ONNX file is static and gives the FP32 form's outputs on every probe, or the kit is not written.
2. Calibration pictures and probes are what the device would feed: cut, resized and padded by the same code.
3. The folder appears by one rename.
"""

from __future__ import annotations

import csv
import json
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge.bundle.bundle import Bundle, read_bundle
from edge.durable import fsync_folder, fsync_tree
from edge.errors import QuantizeError
from edge.imaging.image import read_image
from edge.inference.engine import open_engine
from edge.inference.preprocess import to_batch, to_canvas
from edge.types import Image
from quantize.dataset import Data
from quantize.forms.calibrate import collect_histograms
from quantize.pictures import Picture
from quantize.reports import kit_check
from quantize.reports.bundle_models import BundleModel, models_of
from quantize.reports.kit_onnx import PARITY, Normalisation, weight_rows, write_nchw, write_uint8
from quantize.reports.kit_vendors import readme, vendor_files
from quantize.reports.report import Progress, new_folder

PROBES = 8
SCENE_PROBES = 4
_RANGE_PICTURES = 64  # more do not change a range to be looked at


def write_kit(folder: Path, out: Path, data: Data, progress: Progress) -> Iterator[str]:
    """Write the kit of a bundle into a new folder; yield a line for each model, and one for the kit.

    Args:
        folder: of the bundle.
        out: the folder to create.
        data: pictures to calibrate on.
        progress: wraps the models.

    Raises:
        BundleError: the bundle is damaged.
        QuantizeError: the output folder exists, a model has no FP32 form, there is no picture for it, or its file
            cannot be made static.
        EngineError: a model cannot be run.
        CaptureError: a probe or picture cannot be read.
    """
    new_folder(out)
    bundle = read_bundle(folder)
    models = [one for one in models_of(bundle) if one.spec.kind != "finder"]
    if missing := [one.name for one in models if "fp32" not in one.files]:
        raise QuantizeError(
            f"{folder}: holds no FP32 form of {', '.join(missing[:5])}{', …' if len(missing) > 5 else ''}; "
            "pack the bundle with --keep-both"
        )
    scratch = Path(tempfile.mkdtemp(prefix=f".{out.name}.", dir=out.parent))
    lines, rows = [], []
    try:
        for one in progress(models, "kit"):
            row, line = _write_model(bundle, one, scratch / "models" / one.name, data)
            rows.append(row)
            lines.append(line)
        told = {"bundle": bundle.manifest.bundle_id, "models": rows}
        (scratch / "kit.json").write_text(json.dumps(told, indent=1) + "\n", encoding="utf-8")
        shutil.copyfile(kit_check.__file__, scratch / "check.py")
        for name, text in {"README.md": readme(told), **vendor_files(told)}.items():
            (scratch / name).parent.mkdir(exist_ok=True)
            (scratch / name).write_text(text, encoding="utf-8")
        scratch.chmod(0o755)
        fsync_tree(scratch)
        scratch.rename(out)
        fsync_folder(out.parent)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    yield from lines
    if bundle.manifest.finder is not None:
        yield "finder: left out: it is two networks that exchange heat maps, and runs on the CPU"
    yield f"{out}: kit of bundle {bundle.manifest.bundle_id}, {len(rows)} models; start with {out / 'README.md'}"


def _write_model(bundle: Bundle, one: BundleModel, folder: Path, data: Data) -> tuple[dict[str, Any], str]:
    """Write everything about one model; return its entry in kit.json, and a line for people."""
    (folder / "probes").mkdir(parents=True)
    (folder / "calibration").mkdir()
    files = {variant: f"{one.name}.{variant}.onnx" for variant in ("uint8", "nchw")}
    write_uint8(one, folder / files["uint8"])
    normalisation = write_nchw(one, folder / files["nchw"])
    pictures = _calibration(one, data)
    with (folder / "calibration.txt").open("w", encoding="utf-8") as listing:
        for number, picture in enumerate(pictures):
            name = f"calibration/{number:04}.npy"
            np.save(folder / name, _canvas(one, picture.crop(one.spec.preprocess.crop_margin)))
            listing.write(f"{name}\n")
    probes = [_canvas(one, picture) for picture in _probes(bundle, one, data)]
    _write_probes(one, folder, files, normalisation, probes)
    _write_ranges(folder, files["nchw"], normalisation, len(pictures))
    row = _entry(one, files, normalisation, len(probes), len(pictures))
    (folder / "preprocessing.json").write_text(json.dumps(row["input"] | _scaling(normalisation), indent=1) + "\n")
    return row, f"{one.name}: {len(pictures)} calibration pictures, {len(probes)} probes"


def _canvas(one: BundleModel, picture_rgb: Image) -> Image:
    """Return a picture as the model sees it: (height, width, 3) uint8 in the model's colour order."""
    return to_canvas(one.spec.preprocess, picture_rgb)[0]


def _calibration(one: BundleModel, data: Data) -> Sequence[Picture]:
    if one.spec.kind == "detector":
        pictures: Sequence[Picture] = data.scenes_for(data.calibration_split)
    else:
        pictures = data.calibration_crops(one.spec)
    if not pictures:
        raise QuantizeError(
            f"{one.name}: there are no pictures of split {data.calibration_split!r} to calibrate on; there are the "
            f"splits {data.splits(one.spec.kind)}; check --calibration-split"
        )
    return pictures


def _probes(bundle: Bundle, one: BundleModel, data: Data) -> list[Image]:
    """Return the golden probes that the model sees; where the bundle has none, pictures of the data set."""
    manifest = bundle.manifest
    if one.spec.kind == "detector":
        paths = [probe.path for probe in manifest.scene_probes][:SCENE_PROBES]
        others: Sequence[Picture] = data.scenes_for(data.held_out_split) or data.scenes_for(data.calibration_split)
    else:
        known = one.spec.categories if one.spec.kind == "embedder" else None
        paths = [probe.path for probe in manifest.probes if known is None or probe.category in known][:PROBES]
        others = [] if paths else data.held_out_crops(one.spec) or data.calibration_crops(one.spec)
    if paths:
        return [read_image(bundle.path(path)) for path in paths]
    return [picture.crop(one.spec.preprocess.crop_margin) for picture in others[:SCENE_PROBES]]


def _write_probes(
    one: BundleModel, folder: Path, files: dict[str, str], normalisation: Normalisation, probes: Sequence[Image]
) -> None:
    """Write inputs and expected outputs, and check that both files give them.

    Raises:
        QuantizeError: a file gives other outputs than the FP32 form.
    """
    reference = open_engine(one.files["fp32"], "onnxruntime")
    engines = {variant: open_engine(folder / file, "onnxruntime") for variant, file in files.items()}
    for number, canvas in enumerate(probes):
        batch = to_batch(one.spec.preprocess, [canvas])
        expected = [np.asarray(output, np.float32) for output in reference.run(batch)]
        for variant, engine in engines.items():
            got = engine.run(batch if variant == "uint8" else normalisation.apply(canvas))
            _require_same(expected, got, folder / files[variant])
        np.save(folder / f"probes/{number:02}.input.npy", canvas[None])
        for index, output in enumerate(expected):
            np.save(folder / f"probes/{number:02}.output-{index}.npy", output)


def _require_same(expected: Sequence[NDArray[np.float32]], got: Sequence[NDArray[Any]], where: Path) -> None:
    for want, output in zip(expected, got, strict=True):
        difference = float(np.abs(np.asarray(output, np.float32) - want).max() / max(float(np.abs(want).max()), 1e-6))
        if not difference <= PARITY:
            raise QuantizeError(
                f"{where.name}: differs from the FP32 form by {difference:.1e} of its largest output, expected at most "
                f"{PARITY:g}"
            )


def _write_ranges(folder: Path, file: str, normalisation: Normalisation, pictures: int) -> None:
    """Write the range of each layer's weights and output, for compilers with one scale for a whole tensor."""
    count = min(pictures, _RANGE_PICTURES)
    batches = (normalisation.apply(np.load(folder / f"calibration/{number:04}.npy")) for number in range(count))
    histograms = collect_histograms(folder / file, batches)
    rows = []
    for row in weight_rows(folder / file):
        if (histogram := histograms.get(str(row.pop("output")))) is not None:
            usual = histogram.range(99.99)
            row |= {
                "output_min": histogram.low,
                "output_max": histogram.high,
                "output_low_99.99": usual.low,
                "output_high_99.99": usual.high,
                "output_scale_8_bit": (usual.high - usual.low) / 255,
            }
        rows.append({name: f"{value:.6g}" if isinstance(value, float) else value for name, value in row.items()})
    with (folder / "ranges.csv").open("w", newline="", encoding="utf-8") as out:
        writer = csv.DictWriter(out, list(dict.fromkeys(name for row in rows for name in row)))
        writer.writeheader()
        writer.writerows(rows)


def _scaling(normalisation: Normalisation) -> dict[str, Any]:
    rounded = [[round(value, 6) for value in values] for values in (normalisation.mean, normalisation.std)]
    return {"mean": rounded[0], "std": rounded[1]}


def _entry(
    one: BundleModel, files: dict[str, str], normalisation: Normalisation, probes: int, pictures: int
) -> dict[str, Any]:
    """Return a model's entry in kit.json."""
    spec, preprocess = one.spec, one.spec.preprocess
    row: dict[str, Any] = {
        "name": one.name,
        "kind": spec.kind,
        "files": files,
        "input": {
            "name": spec.input_name,
            **preprocess.model_dump(mode="json", exclude={"mean", "std"}),
        },
        **_scaling(normalisation),
        "outputs": [
            {"name": name, "shape": list(shape)}
            for name, shape in zip(spec.output_names, one.model.output_shapes(1), strict=True)
        ],
        "probes": probes,
        "calibration": pictures,
    }
    if spec.kind in {"classifier", "detector"}:
        row["labels"] = spec.labels
    if spec.kind == "detector":
        row["decoder"] = spec.decoder
        row["score_threshold"] = spec.score_threshold
        row["clear_score"] = round((1 + spec.score_threshold) / 2, 4)
    return row
