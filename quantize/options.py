"""The parser of the `edge-quantize` command."""

from __future__ import annotations

import argparse
from pathlib import Path

from quantize.gates import LIMITS

TARGET_CPUS = ("this", "dot-product", "any")
TARGETS = ("cpu", "tensorrt", "fp16", "tensorrt-s8")


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of all verbs."""
    parser = argparse.ArgumentParser(
        prog="edge-quantize",
        description="Turn trained networks into INT8 models and pack them into a bundle for devices.",
    )
    parser.add_argument(
        "--log-level",
        default="info",
        choices=["debug", "info", "warning", "error"],
        help="lowest level to log (default: info)",
    )
    verbs = parser.add_subparsers(metavar="VERB", required=True)

    export = verbs.add_parser("export", help="export a training run to FP32 ONNX")
    export.add_argument("run", type=Path, help="training run folder")
    export.add_argument("out", type=Path, help="ONNX file to write; its spec is written beside it as .json")
    export.set_defaults(verb="export")

    quantize = verbs.add_parser("quantize", help="write another form of an exported model: INT8 or FP16")
    quantize.add_argument("fp32", type=Path, help="FP32 ONNX file with its spec beside it")
    quantize.add_argument("out", type=Path, help="ONNX file to write")
    quantize.add_argument(
        "--form",
        choices=["ort-u8", "tensorrt-s8", "fp16"],
        default="ort-u8",
        help="INT8 for ONNX Runtime on a CPU, INT8 for TensorRT, or FP16 for GPUs (default: ort-u8)",
    )
    _add_data(quantize)
    _add_cpu(quantize)
    quantize.set_defaults(verb="quantize")

    compare = verbs.add_parser("compare", help="compare FP32 and another form of a model; exit 1 if a gate fails")
    compare.add_argument("fp32", type=Path, help="FP32 ONNX file with its spec beside it")
    compare.add_argument(
        "form",
        type=Path,
        help="ONNX file of the other form; latency is compared only for a form that runs on this CPU",
    )
    compare.add_argument("--json", action="store_true", help="print JSON")
    _add_data(compare)
    _add_speedup(compare)
    compare.set_defaults(verb="compare")

    pack = verbs.add_parser("pack", help="export, quantise and compare models, and pack them into a bundle")
    _add_pack(pack)
    pack.set_defaults(verb="pack")

    report = verbs.add_parser("report", help="write one page about a bundle: accuracy, changed answers, time, fusion")
    report.add_argument("bundle", type=Path, help="bundle folder")
    report.add_argument("-o", "--out", type=Path, required=True, help="folder to create: report.html and report.json")
    report.add_argument("--state", type=Path, help="state folder of a device: also report which engines it chose")
    report.add_argument(
        "--no-measure", action="store_true", help="run no engine here: only what the bundle itself records"
    )
    report.add_argument(
        "--tensorrt-layers",
        type=Path,
        metavar="FOLDER",
        help="JSON of TensorRT's engine inspector, one MODEL.FORM.json for each engine (default: the graph's rules)",
    )
    _add_data(report)
    report.set_defaults(verb="report")

    kit = verbs.add_parser(
        "kit", help="write what the compilers of other accelerators take: Hailo, RKNN, Qualcomm, Axis"
    )
    kit.add_argument("bundle", type=Path, help="bundle folder; it must hold the FP32 form of each model (--keep-both)")
    kit.add_argument("-o", "--out", type=Path, required=True, help="folder to create")
    _add_data(kit)
    kit.set_defaults(verb="kit")
    return parser


def _add_pack(pack: argparse.ArgumentParser) -> None:
    pack.add_argument("--id", required=True, help="bundle id")
    pack.add_argument(
        "--sequence", type=int, required=True, help="sequence number, larger than that of the bundle it replaces"
    )
    pack.add_argument("--out", type=Path, required=True, help="bundle folder to create")
    _add_models(pack)
    _add_data(pack)
    _add_cpu(pack)
    _add_speedup(pack)
    _add_forms(pack)
    _add_thresholds(pack)
    _add_vectors(pack)
    _add_base(pack)


def _add_forms(pack: argparse.ArgumentParser) -> None:
    pack.add_argument("--precision", choices=["auto", "fp32"], default="auto", help="fp32 skips INT8 (default: auto)")
    pack.add_argument(
        "--targets",
        type=_targets,
        default=("cpu",),
        metavar="TARGETS",
        help="comma-separated targets: cpu, which is always packed, and tensorrt, which adds FP16 and INT8 for GPUs "
        "where they pass their gates; a form by its name, fp16 or tensorrt-s8, must pass (default: cpu)",
    )
    pack.add_argument(
        "--allow-degraded",
        action="append",
        default=[],
        metavar="MODEL.GATE",
        help="pack even if this gate fails, and record it in the manifest; repeat for several; "
        f"gates: {', '.join(LIMITS)}, named (of an embedder that names next to nothing); of a form for another engine "
        "MODEL.FORM.GATE",
    )
    pack.add_argument("--fallback-fp32", action="store_true", help="pack FP32 for a model whose INT8 form fails a gate")
    pack.add_argument(
        "--keep-both", action="store_true", help="also pack the other form of each model, FP32 or INT8, if accurate"
    )
    pack.add_argument("--no-probes", action="store_true", help="pack without golden probes")


def _add_thresholds(pack: argparse.ArgumentParser) -> None:
    pack.add_argument(
        "--false-accept",
        type=_between_0_and_1,
        metavar="SHARE",
        help="share of unknown objects that may be accepted (default: the threshold is the accuracy on held-out crops)",
    )
    pack.add_argument(
        "--risk",
        type=_between_0_and_1,
        metavar="SHARE",
        help="share of all names that may be wrong, such as 0.01 for 1 in 100: the lowest threshold for which the "
        "held-out pictures show it with 95 %% confidence; refused where they cannot (instead of --false-accept)",
    )


def _add_vectors(pack: argparse.ArgumentParser) -> None:
    pack.add_argument(
        "--classifier-share",
        type=_from_0_below_1,
        metavar="SHARE",
        help="weight of the classifier's descriptor in each cosine; needs a classifier trained with descriptor_dim "
        "(default: as in --base, else 0)",
    )
    pack.add_argument(
        "--gathering",
        type=_from_0_to_1,
        metavar="SHARE",
        help="how far devices move each gallery vector towards the mean of its item, from 0 (not at all) to 1 "
        "(default: as in --base, else 0.5)",
    )
    pack.add_argument(
        "--unfamiliar",
        type=_from_0_below_1,
        default=0.01,
        metavar="SHARE",
        help="share of the held-out crops that may look unfamiliar to a new classifier: what looks less familiar, such "
        "as an empty counter, has no likely category; 0: everything is familiar (default: 0.01)",
    )
    pack.add_argument(
        "--whiten",
        choices=["off", "auto", "on"],
        default="off",
        help="weaken the directions in which the pictures of one item differ, fitted on the labelled pictures of the "
        "gallery; auto: if held-out pictures of items that were left out are then found more often (default: off)",
    )
    pack.add_argument(
        "--outline",
        choices=["absolute", "aligned", "iou_only", "off"],
        help="how an object's silhouette counts when items are ranked, in every category: beside the vector, as in the "
        "crop or moved and scaled to a norm; iou_only, as published: alone, over the nearest items; or not at all "
        "(default: where a new localiser gains more than chance on held-out crops)",
    )


def _add_base(pack: argparse.ArgumentParser) -> None:
    pack.add_argument("--work", type=Path, help="folder to keep the exported and quantised models in")
    pack.add_argument("--base", type=Path, help="base bundle: keep its models, unchanged, unless you give a new one")
    pack.add_argument(
        "--compatible-with",
        type=Path,
        action="append",
        default=[],
        metavar="BUNDLE",
        help="older bundle; declare its galleries searchable if Recall@1 in them improves; repeat for several",
    )
    pack.add_argument(
        "--compatible-tolerance",
        type=float,
        default=0.02,
        help="largest loss of Recall@1 in those galleries that the 95 percent interval may include (default: 0.02)",
    )


def _add_models(pack: argparse.ArgumentParser) -> None:
    detector = pack.add_mutually_exclusive_group()
    detector.add_argument("--detector", type=Path, help="detector: a training run or an exported model")
    detector.add_argument(
        "--detector-onnx",
        type=Path,
        help="detector ONNX file from another source; YOLOX trained on COCO needs no spec",
    )
    pack.add_argument(
        "--detector-spec",
        metavar="SPEC",
        help="spec of that detector: yolox-coco (takes BGR), yolox-coco-rgb, or a JSON file with kind, output_names, "
        "preprocess, decoder, strides, labels (default: the JSON file beside the ONNX file, else YOLOX on COCO if "
        "its shapes fit)",
    )
    pack.add_argument(
        "--keep-labels",
        type=_names,
        metavar="LABELS",
        help="comma-separated labels of that detector to report, such as car,bus,truck,motorcycle (default: as in its "
        "spec, else all)",
    )
    pack.add_argument("--classifier", type=Path, help="classifier: a training run or an exported model")
    pack.add_argument(
        "--localiser",
        type=Path,
        help="localiser: a training run or an exported model; fits a weight for silhouettes in each category",
    )
    pack.add_argument(
        "--embedder",
        type=Path,
        action="append",
        default=[],
        help="embedder of one or more categories: a training run, a folder of one run per category, or an exported "
        "model; repeat for several",
    )
    pack.add_argument("--finder", type=Path, help="finder: a training run; read NOTICE first")


def _names(text: str) -> list[str]:
    return [name for part in text.split(",") if (name := part.strip())]


def _targets(text: str) -> tuple[str, ...]:
    names = tuple(_names(text))
    if unknown := [name for name in names if name not in TARGETS]:
        raise argparse.ArgumentTypeError(f"{', '.join(unknown)} is not a target; choose from {', '.join(TARGETS)}")
    return names


def _between_0_and_1(text: str) -> float:
    share = float(text)
    if not 0 < share < 1:
        raise argparse.ArgumentTypeError(f"{text} is not a share above 0 and below 1")
    return share


def _from_0_to_1(text: str) -> float:
    portion = float(text)
    if not 0 <= portion <= 1:
        raise argparse.ArgumentTypeError(f"{text} is not a number from 0 to 1")
    return portion


def _from_0_below_1(text: str) -> float:
    part = float(text)
    if not 0 <= part < 1:
        raise argparse.ArgumentTypeError(f"{text} is not a number from 0 to below 1")
    return part


def _add_data(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--index", type=Path, help="data set of crops: a CSV with columns path, split, category, item, or any layout"
    )
    parser.add_argument(
        "--root",
        type=Path,
        help="folder of the paths in a CSV or COCO JSON (default: the folder of the index or scenes file)",
    )
    parser.add_argument(
        "--scenes",
        type=Path,
        help="data set of whole pictures with boxes, COCO JSON or another layout: to calibrate, compare and probe a "
        "detector, and for other models if there is no --index",
    )
    parser.add_argument("--calibration-split", help="split to calibrate on (default: train)")
    parser.add_argument("--held-out-split", help="split to compare on (default: val)")
    parser.add_argument(
        "--gallery-splits",
        type=_names,
        help="comma-separated splits of reference crops (default: catalogue, or train in a data set without it)",
    )
    parser.add_argument(
        "--plain-splits",
        type=_names,
        default=["catalogue"],
        help="comma-separated splits of one object on a plain background, which is cropped first (default: catalogue)",
    )
    parser.add_argument(
        "--calibration-images", type=int, default=200, help="number of pictures to calibrate on (default: 200)"
    )
    parser.add_argument(
        "--held-out-images", type=int, default=1000, help="number of pictures to compare on (default: 1000)"
    )


def _add_cpu(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--target-cpu",
        choices=TARGET_CPUS,
        default="this",
        help="CPU that INT8 must be exact on: this machine's, one with an 8-bit dot product, or any (default: this)",
    )


def _add_speedup(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--min-speedup",
        type=float,
        default=1 / LIMITS["latency"].value,
        help="how many times faster INT8 must be to ship (default: 1.11)",
    )
