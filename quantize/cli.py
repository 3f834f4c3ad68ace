"""The `edge-quantize` command: export, quantise, compare and pack. Sets up logging and progress bars."""

from __future__ import annotations

import argparse
import json
import logging
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from edge.errors import FinesightError
from edge.extras import install_hint
from edge.imaging.image import set_threads
from quantize.dataset import Data
from quantize.gates import LIMITS
from quantize.pictures import Picture

log = logging.getLogger(__name__)

TARGET_CPUS = ("this", "dot-product", "any")


def main(argv: list[str] | None = None) -> int:
    """Run the command. Return 0 on success, 1 on an error (one line, no traceback), 2 on wrong usage."""
    arguments = build_parser().parse_args(argv)
    logging.basicConfig(level="WARNING", format="%(levelname)s %(name)s: %(message)s", stream=sys.stderr)
    for name in ("quantize", "edge", "trainer"):  # onnxruntime's quantiser logs on the root logger
        logging.getLogger(name).setLevel(arguments.log_level.upper())
    set_threads(1)
    try:
        verb: Callable[[argparse.Namespace], int] = arguments.verb
        return verb(arguments)
    except FinesightError as error:
        print(f"edge-quantize: {error}", file=sys.stderr)
        return 1
    except ModuleNotFoundError as error:
        if (hint := install_hint(error, "quantize")) is None:
            raise
        print(f"edge-quantize: {hint}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130


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
    export.set_defaults(verb=_export)

    quantize = verbs.add_parser("quantize", help="quantise an exported model to INT8")
    quantize.add_argument("fp32", type=Path, help="FP32 ONNX file with its spec beside it")
    quantize.add_argument("out", type=Path, help="INT8 ONNX file to write")
    _add_data(quantize)
    _add_cpu(quantize)
    quantize.set_defaults(verb=_quantize)

    compare = verbs.add_parser("compare", help="compare accuracy and latency of FP32 and INT8; exit 1 if a gate fails")
    compare.add_argument("fp32", type=Path, help="FP32 ONNX file with its spec beside it")
    compare.add_argument("int8", type=Path, help="INT8 ONNX file")
    compare.add_argument("--json", action="store_true", help="print JSON")
    _add_data(compare)
    _add_speedup(compare)
    compare.set_defaults(verb=_compare)

    pack = verbs.add_parser("pack", help="export, quantise and compare models, and pack them into a bundle")
    _add_pack(pack)
    pack.set_defaults(verb=_pack)
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
    pack.add_argument("--precision", choices=["auto", "fp32"], default="auto", help="fp32 skips INT8 (default: auto)")
    pack.add_argument(
        "--allow-degraded",
        action="append",
        default=[],
        metavar="MODEL.GATE",
        help="pack even if this gate fails, and record it in the manifest; repeat for several; "
        f"gates: {', '.join(LIMITS)}",
    )
    pack.add_argument("--fallback-fp32", action="store_true", help="pack FP32 for a model whose INT8 form fails a gate")
    pack.add_argument(
        "--keep-both", action="store_true", help="also pack the other form of each model, FP32 or INT8, if accurate"
    )
    pack.add_argument("--no-probes", action="store_true", help="pack without golden probes")
    pack.add_argument(
        "--false-accept",
        type=_between_0_and_1,
        metavar="SHARE",
        help="share of unknown objects that may be accepted (default: the threshold is the accuracy on held-out crops)",
    )
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
        "--detector-onnx", type=Path, help="detector ONNX file from another source; needs --detector-spec"
    )
    pack.add_argument(
        "--detector-spec",
        type=Path,
        help="spec of that detector: JSON with kind, output_names, preprocess, decoder, strides, labels",
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
        help="embedder of one or more categories: a training run or an exported model; repeat for several",
    )
    pack.add_argument("--finder", type=Path, help="finder: a training run; read NOTICE first")


def _names(text: str) -> list[str]:
    return [name for part in text.split(",") if (name := part.strip())]


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


def _export(arguments: argparse.Namespace) -> int:
    from quantize.export import export_fp32

    spec = export_fp32(arguments.run, arguments.out)
    print(f"{arguments.out}: {spec.kind}, {arguments.out.stat().st_size} bytes")
    return 0


def _quantize(arguments: argparse.Namespace) -> int:
    from quantize.build_network import export_or_copy, quantize_network
    from quantize.write_int8 import measure_fusion

    with _data(arguments) as data, _scratch() as folder:
        fp32 = folder / "network.fp32.onnx"
        spec = export_or_copy(arguments.fp32, fp32)
        pictures = data.scenes_for(data.calibration_split) if spec.kind == "detector" else data.calibration_crops(spec)
        done = quantize_network(
            spec, fp32, pictures, arguments.out, saturates=_saturates(arguments.target_cpu), progress=_progress
        )
    fusion = measure_fusion(arguments.out)
    print(f"{arguments.out}: {fusion.int8} INT8 and {fusion.fp32} FP32 convolutions, {json.dumps(done)}")
    return 0


def _compare(arguments: argparse.Namespace) -> int:
    from quantize.build_network import evaluate, export_or_copy
    from quantize.network_spec import model_entry
    from quantize.onnx_file import check_fits

    with _data(arguments) as data, _scratch() as folder:
        fp32 = folder / "network.fp32.onnx"
        spec = export_or_copy(arguments.fp32, fp32)
        check_fits(arguments.int8, model_entry(spec, {"fp32": fp32.name}, "fp32", "", "unused.onnx"), arguments.int8)
        table, gates = evaluate(spec, fp32, arguments.int8, data, arguments.min_speedup)
    if arguments.json:
        print(json.dumps(table, indent=1))
    else:
        print(f"{'metric':<32} {'FP32':>10} {'INT8':>10}   {table['images']} images")
        for name, row in table["metrics"].items():
            print(f"{name:<32} {row['fp32']:>10.4f} {row['int8']:>10.4f}")
        for gate in gates:
            print(f"gate {gate}")
    return 0 if all(gate.holds for gate in gates) else 1


def _pack(arguments: argparse.Namespace) -> int:
    from quantize.build_network import Policy, build_network
    from quantize.pack import PackOptions, pack

    policy = Policy(
        precision=arguments.precision,
        min_speedup=arguments.min_speedup,
        waived=frozenset(arguments.allow_degraded),
        fallback_fp32=arguments.fallback_fp32,
        saturates=_saturates(arguments.target_cpu),
    )
    options = PackOptions(
        arguments.id,
        arguments.sequence,
        arguments.out,
        keep_both=arguments.keep_both,
        with_probes=not arguments.no_probes,
        base=arguments.base,
        compatible_with=tuple(arguments.compatible_with),
        tolerance=arguments.compatible_tolerance,
        false_accept=arguments.false_accept,
        classifier_share=arguments.classifier_share,
        gathering=arguments.gathering,
    )
    with _data(arguments) as data, _scratch() as scratch:
        work = arguments.work or scratch
        work.mkdir(parents=True, exist_ok=True)
        networks = [
            build_network(name, source, work, data, policy, _progress, spec_file)
            for name, source, spec_file in _sources(arguments)
        ]
        manifest = pack(options, networks, data)
    for network in networks:
        print(f"{network.name}: ships {network.ship}: {network.why}")
        for bundle_id, categories in manifest.evaluation[network.name].get("compatible", {}).items():
            for category, row in categories.items():
                may = "may" if row["declared"] else "may NOT"
                print(f"{network.name}: {category}: galleries of bundle {bundle_id} {may} be searched: {row['why']}")
    size = sum(entry.size for entry in manifest.files)
    print(
        f"{arguments.out}: bundle {manifest.bundle_id}, {len(manifest.files)} files, {size} bytes, "
        f"{len(manifest.probes) + len(manifest.scene_probes)} probes"
    )
    return 0


def _sources(arguments: argparse.Namespace) -> Iterable[tuple[str, Path, Path | None]]:
    if arguments.detector or arguments.detector_onnx:
        yield "detector", arguments.detector or arguments.detector_onnx, arguments.detector_spec
    if arguments.classifier:
        yield "classifier", arguments.classifier, None
    if arguments.localiser:
        yield "localiser", arguments.localiser, None
    if arguments.finder:
        yield "finder", arguments.finder, None
    names = [source.stem if source.suffix == ".onnx" else source.name for source in arguments.embedder]
    for number, (name, source) in enumerate(zip(names, arguments.embedder, strict=True)):
        label = name.removeprefix("embedder").strip("-_.") or str(number)
        yield f"embedder-{label if names.count(name) == 1 else number}", source, None


@contextmanager
def _scratch() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="finesight-pack-") as folder:
        yield Path(folder)


@contextmanager
def _data(arguments: argparse.Namespace) -> Iterator[Data]:
    """Read the data sets; in the end, say which of the chosen pictures could not be read."""
    from quantize.dataset import Splits, read_data

    data = read_data(
        arguments.index,
        arguments.scenes,
        arguments.root,
        Splits(arguments.calibration_split, arguments.held_out_split, arguments.gallery_splits, arguments.plain_splits),
        arguments.calibration_images,
        arguments.held_out_images,
    )
    try:
        yield data
    finally:
        for line in data.unreadable():
            log.warning("%s", line)


def _saturates(target_cpu: str) -> bool:
    from quantize.latency import cpu_info
    from quantize.write_int8 import lacks_dot_product

    if target_cpu == "this":
        return lacks_dot_product(cpu_info())
    return target_cpu == "any"


def _progress(pictures: Sequence[Picture], what: str) -> Iterable[Picture]:
    from tqdm import tqdm

    bar: Iterable[Picture] = tqdm(pictures, desc=what, unit="image", leave=False, disable=None)
    return bar


if __name__ == "__main__":
    sys.exit(main())
