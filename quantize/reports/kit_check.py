"""Compare what a vendor's runtime makes of the golden probes of a kit with what it should make.

    python check.py OUTPUTS                 # OUTPUTS/<model>/00.output-0.npy, ...; exit 1 if a probe fails
    python check.py --run uint8 OUTPUTS     # write such a folder with ONNX Runtime, to see the layout
    python check.py --run nchw OUTPUTS      # the same with the files for compilers that normalise themselves

Needs numpy, and onnxruntime for --run. Every output is float32 and has the shape of the expected file: dequantise it,
and turn NHWC into NCHW where the runtime gives NHWC. The limits are those of `edge bundle prove`.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from pathlib import Path
from typing import Any

import numpy as np

MIN_COSINE = 0.97
MIN_OVERLAP = 0.7  # of a box with the expected one
KIT = Path(__file__).parent


def main(argv: list[str] | None = None, kit: Path = KIT) -> int:
    """Check or run; return 0 if every probe passes, 1 if one fails, 2 on wrong usage."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("outputs", type=Path, help="folder of outputs")
    parser.add_argument("--run", choices=["uint8", "nchw"], help="write that folder with ONNX Runtime")
    arguments = parser.parse_args(argv)
    models = json.loads((kit / "kit.json").read_text(encoding="utf-8"))["models"]
    if arguments.run:
        for model in models:
            run(kit / "models" / model["name"], model, arguments.run, arguments.outputs / model["name"])
        print(f"{arguments.outputs}: outputs of {len(models)} models, by ONNX Runtime")
        return 0
    if not arguments.outputs.is_dir():
        print(f"check.py: {arguments.outputs}: no such folder; put the outputs into it", file=sys.stderr)
        return 2
    failed = sum(not check(kit / "models" / one["name"], one, arguments.outputs / one["name"]) for one in models)
    print(f"{len(models) - failed} of {len(models)} models pass")
    return 1 if failed else 0


def run(folder: Path, model: dict[str, Any], variant: str, out: Path) -> None:
    """Write the outputs of one model for every probe."""
    os.environ["ORT_DISABLE_TELEMETRY"] = "1"  # from 1.31 on it reports to its maker unless told not to before
    import onnxruntime

    session = onnxruntime.InferenceSession(str(folder / model["files"][variant]), providers=["CPUExecutionProvider"])
    out.mkdir(parents=True, exist_ok=True)
    for number in range(model["probes"]):
        canvas = np.load(folder / f"probes/{number:02}.input.npy")  # (1, height, width, 3) uint8
        values = canvas
        if variant == "nchw":
            values = (canvas.astype(np.float32) - np.float32(model["mean"])) / np.float32(model["std"])
            values = np.ascontiguousarray(values.transpose(0, 3, 1, 2))
        elif model["input"]["layout"] == "nchw":
            values = np.ascontiguousarray(canvas.transpose(0, 3, 1, 2))
        if variant == "uint8":
            values = values.astype(model["input"]["dtype"])
        for index, output in enumerate(session.run(None, {session.get_inputs()[0].name: values})):
            np.save(out / f"{number:02}.output-{index}.npy", output)


def check(folder: Path, model: dict[str, Any], outputs: Path) -> bool:
    """Compare every probe of one model, print a line for each, and return whether all pass."""
    passed = True
    for number in range(model["probes"]):
        pairs = []
        for index in range(len(model["outputs"])):
            name = f"{number:02}.output-{index}.npy"
            expected = np.load(folder / "probes" / name)
            if not (outputs / name).is_file():
                print(f"{model['name']} {number:02}: FAILED, {outputs / name} is missing")
                return False
            got = np.load(outputs / name)
            if got.shape != expected.shape:
                print(f"{model['name']} {number:02}: FAILED, found shape {got.shape}, expected {expected.shape}")
                return False
            pairs.append((expected.astype(np.float64), got.astype(np.float64)))
        good, text = judge(model, pairs)
        print(f"{model['name']} {number:02}: {'ok' if good else 'FAILED'}, {text}")
        passed &= good
    return passed


def judge(model: dict[str, Any], pairs: list[tuple[np.ndarray, np.ndarray]]) -> tuple[bool, str]:
    """Return whether the outputs of one probe pass, and why."""
    if not all(np.isfinite(got).all() for _, got in pairs):
        return False, "an output has values that are not finite"
    cosines = [cosine(expected, got) for expected, got in pairs]
    text = f"cosine {', '.join(f'{value:.4f}' for value in cosines)}"
    if model["kind"] == "classifier":
        expected, got = (int(values.argmax()) for values in pairs[0])
        labels = model["labels"]
        same = expected == got
        return same and min(cosines) >= MIN_COSINE, f"{text}, {labels[got]}, expected {labels[expected]}"
    if model["kind"] == "detector":
        found, of = boxes_found(model, pairs)
        return found == of and min(cosines) >= MIN_COSINE, f"{text}, {found} of {of} cells with an object agree"
    return min(cosines) >= MIN_COSINE, text


def cosine(a: np.ndarray, b: np.ndarray) -> float:
    """Return the cosine of two arrays, taken as vectors."""
    return float((a * b).sum() / max(float(np.sqrt((a * a).sum() * (b * b).sum())), 1e-12))


def boxes_found(model: dict[str, Any], pairs: list[tuple[np.ndarray, np.ndarray]]) -> tuple[int, int]:
    """Return in how many of the cells with a clear object the box is the same, and how many such cells there are."""
    found = of = 0
    for expected, got in pairs:
        scores, boxes = decode(model, expected)
        other_scores, other_boxes = decode(model, got)
        clear = scores >= model["clear_score"]
        of += int(clear.sum())
        same = (overlap(boxes, other_boxes) >= MIN_OVERLAP) & (other_scores >= model["score_threshold"])
        found += int((clear & same).sum())
    return found, of


def decode(model: dict[str, Any], output: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the score of each cell, (n,), and its box relative to the cell: left, top, right, bottom, (n, 4)."""
    if model["decoder"] == "yolox":  # x, y, log width, log height, objectness, classes
        cells = output[0]
        half = np.exp(cells[:, 2:4].clip(-20, 20)) / 2
        x, y = cells[:, 0], cells[:, 1]
        boxes = np.stack([half[:, 0] - x, half[:, 1] - y, half[:, 0] + x, half[:, 1] + y], axis=1)
        return cells[:, 4] * cells[:, 5:].max(axis=1), boxes
    cells = output[0].reshape(output.shape[1], -1).T  # left, top, right, bottom, logits of the classes
    return 1 / (1 + np.exp(-cells[:, 4:].max(axis=1).clip(-30, 30))), cells[:, :4]


def overlap(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Return the overlap of boxes that share an origin, as intersection over union."""
    sides = np.minimum(a[:, :2], b[:, :2]) + np.minimum(a[:, 2:], b[:, 2:])
    shared = sides.clip(0).prod(axis=1)
    areas = [(one[:, :2] + one[:, 2:]).clip(0).prod(axis=1) for one in (a, b)]
    return np.asarray(shared / np.maximum(areas[0] + areas[1] - shared, 1e-9))


if __name__ == "__main__":
    sys.exit(main())
