"""The `edge-quantize` command: export, quantise, compare and pack. Sets up logging and progress bars."""

from __future__ import annotations

import argparse
import json
import logging
import sys
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from edge.errors import FinesightError, QuantizeError
from edge.extras import install_hint
from edge.imaging.image import set_threads
from quantize.dataset import Data
from quantize.options import build_parser
from quantize.pictures import Picture

log = logging.getLogger(__name__)


def main(argv: list[str] | None = None) -> int:
    """Run the command. Return 0 on success, 1 on an error (one line, no traceback), 2 on wrong usage."""
    arguments = build_parser().parse_args(argv)
    logging.basicConfig(level="WARNING", format="%(levelname)s %(name)s: %(message)s", stream=sys.stderr)
    for name in ("quantize", "edge", "trainer"):  # onnxruntime's quantiser logs on the root logger
        logging.getLogger(name).setLevel(arguments.log_level.upper())
    set_threads(1)
    try:
        verbs = {"export": _export, "quantize": _quantize, "compare": _compare, "pack": _pack}
        return verbs[arguments.verb](arguments)
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


def _export(arguments: argparse.Namespace) -> int:
    from quantize.export import export_fp32

    spec = export_fp32(arguments.run, arguments.out)
    print(f"{arguments.out}: {spec.kind}, {arguments.out.stat().st_size} bytes")
    return 0


def _quantize(arguments: argparse.Namespace) -> int:
    from quantize.build_network import export_or_copy, quantize_network
    from quantize.command import saturates
    from quantize.forms.ort_u8 import measure_fusion

    data = _data(arguments)
    with _scratch() as folder:
        fp32 = folder / "network.fp32.onnx"
        spec = export_or_copy(arguments.fp32, fp32)
        pictures = data.scenes_for(data.calibration_split) if spec.kind == "detector" else data.calibration_crops(spec)
        done = quantize_network(
            spec, fp32, pictures, arguments.out, saturates=saturates(arguments.target_cpu), progress=_progress
        )
    _report_unreadable(data)
    fusion = measure_fusion(arguments.out)
    print(f"{arguments.out}: {fusion.int8} INT8 and {fusion.fp32} FP32 convolutions, {json.dumps(done)}")
    return 0


def _compare(arguments: argparse.Namespace) -> int:
    from quantize.build_network import evaluate, export_or_copy
    from quantize.network_spec import model_entry
    from quantize.onnx_file import check_fits

    data = _data(arguments)
    with _scratch() as folder:
        fp32 = folder / "network.fp32.onnx"
        spec = export_or_copy(arguments.fp32, fp32)
        check_fits(arguments.int8, model_entry(spec, {"fp32": fp32.name}, "fp32", "", "unused.onnx"), arguments.int8)
        table, gates, _ = evaluate(spec, fp32, arguments.int8, data, arguments.min_speedup)
    _report_unreadable(data)
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
    from quantize.build_network import Policy
    from quantize.command import PackSources, pack_bundle, saturates
    from quantize.detector_specs import find_spec
    from quantize.pack import PackOptions

    policy = Policy(
        precision=arguments.precision,
        min_speedup=arguments.min_speedup,
        waived=frozenset(arguments.allow_degraded),
        fallback_fp32=arguments.fallback_fp32,
        saturates=saturates(arguments.target_cpu),
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
    detector, detector_spec = arguments.detector, None
    if arguments.detector_onnx is not None:
        detector = arguments.detector_onnx
        detector_spec = find_spec(detector, arguments.detector_spec, arguments.keep_labels)
    elif arguments.detector_spec is not None or arguments.keep_labels is not None:
        raise QuantizeError("--detector-spec and --keep-labels belong to --detector-onnx; give that, too")
    sources = PackSources(
        detector,
        detector_spec,
        arguments.classifier,
        arguments.localiser,
        arguments.finder,
        tuple(arguments.embedder),
    )
    packed = pack_bundle(options, sources, _data(arguments), policy, work=arguments.work, progress=_progress)
    manifest = packed.manifest
    for network in packed.networks:
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
    for warning in packed.warnings:
        print(f"edge-quantize: WARNING: {warning}", file=sys.stderr)
    return 0


@contextmanager
def _scratch() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="finesight-pack-") as folder:
        yield Path(folder)


def _data(arguments: argparse.Namespace) -> Data:
    from quantize.dataset import Splits, read_data

    return read_data(
        arguments.index,
        arguments.scenes,
        arguments.root,
        Splits(arguments.calibration_split, arguments.held_out_split, arguments.gallery_splits, arguments.plain_splits),
        arguments.calibration_images,
        arguments.held_out_images,
    )


def _report_unreadable(data: Data) -> None:
    for line in data.unreadable():
        log.warning("%s", line)


def _progress(pictures: Sequence[Picture], what: str) -> Iterable[Picture]:
    from tqdm import tqdm

    bar: Iterable[Picture] = tqdm(pictures, desc=what, unit="image", leave=False, disable=None)
    return bar


if __name__ == "__main__":
    sys.exit(main())
