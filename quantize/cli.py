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
from typing import TypeVar

from edge.errors import FinesightError, QuantizeError
from edge.extras import install_hint
from edge.imaging.image import set_threads
from quantize.dataset import Data
from quantize.options import build_parser

log = logging.getLogger(__name__)
_Step = TypeVar("_Step")  # a picture, or a model


def main(argv: list[str] | None = None) -> int:
    """Run the command. Return 0 on success, 1 on an error (one line, no traceback), 2 on wrong usage."""
    arguments = build_parser().parse_args(argv)
    logging.basicConfig(level="WARNING", format="%(levelname)s %(name)s: %(message)s", stream=sys.stderr)
    for name in ("quantize", "edge", "trainer"):  # onnxruntime's quantiser logs on the root logger
        logging.getLogger(name).setLevel(arguments.log_level.upper())
    set_threads(1)
    try:
        verbs = {
            "export": _export,
            "quantize": _quantize,
            "compare": _compare,
            "pack": _pack,
            "report": _report,
            "kit": _kit,
        }
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
    from quantize.command import saturates
    from quantize.forms.ort_u8 import measure_fusion
    from quantize.forms.write_forms import calibrate_network, write_fp16, write_ort_u8, write_tensorrt_s8
    from quantize.fp32_model import export_or_copy, legalise_file

    data, out = _data(arguments), arguments.out
    with _scratch() as folder:
        fp32 = folder / "network.fp32.onnx"
        spec = export_or_copy(arguments.fp32, fp32)
        legalise_file(fp32, spec)
        pictures = data.scenes_for(data.calibration_split) if spec.kind == "detector" else data.calibration_crops(spec)
        calibration = calibrate_network(spec, fp32, pictures, folder / "network.prepared.onnx", _progress)
        if arguments.form == "fp16":
            record = write_fp16(calibration, spec, out)
        elif arguments.form == "tensorrt-s8":
            record = write_tensorrt_s8(calibration, spec, out, rest="fp16")
        else:
            record = write_ort_u8(calibration, spec, out, saturates=saturates(arguments.target_cpu))
        record = calibration.record() | record
    _report_unreadable(data)
    fusion = measure_fusion(out) if arguments.form == "ort-u8" else None
    fused = "" if fusion is None else f"{fusion.int8} INT8 and {fusion.fp32} FP32 convolutions, "
    print(f"{out}: {fused}{json.dumps(record)}")
    return 0


def _compare(arguments: argparse.Namespace) -> int:
    import onnx

    from quantize.compare_forms import evaluate, evaluate_emulated
    from quantize.forms.form_of import FOR_TENSORRT, form_of
    from quantize.forms.write_forms import require_same_preprocessing
    from quantize.fp32_model import export_or_copy
    from quantize.network_spec import model_entry, read_spec, spec_path
    from quantize.onnx_file import check_fits

    data, path = _data(arguments), arguments.form
    with _scratch() as folder:
        fp32 = folder / "network.fp32.onnx"
        spec = export_or_copy(arguments.fp32, fp32)
        check_fits(path, model_entry(spec, {"fp32": fp32.name}, "fp32", "", "unused.onnx"), path)
        if spec_path(path).is_file():
            require_same_preprocessing(read_spec(spec_path(path)).preprocess, spec.preprocess, path)
        form: str = form_of(onnx.load(str(path)))
        if form in FOR_TENSORRT:
            table, gates = evaluate_emulated(spec, fp32, path, form, data)
        else:
            form = "int8"
            table, gates, _ = evaluate(spec, fp32, path, data, arguments.min_speedup)
    _report_unreadable(data)
    if arguments.json:
        print(json.dumps(table, indent=1))
    else:
        print(f"{'metric':<32} {'FP32':>12} {form.upper():>12}   {table['images']} images")
        for name, row in table["metrics"].items():
            print(f"{name:<32} {row['fp32']:>12.4f} {row[form]:>12.4f}")
        for gate in gates:
            print(f"gate {gate}")
        print(f"measured with {table['measured_on']['engine']} on {table['measured_on']['cpu']}")
    return 0 if all(gate.holds for gate in gates) else 1


def _pack(arguments: argparse.Namespace) -> int:
    from quantize.build_network import Policy
    from quantize.bundle.pack_options import PackOptions
    from quantize.command import PackSources, forms_for, pack_bundle, saturates
    from quantize.detector_specs import find_spec

    policy = Policy(
        precision=arguments.precision,
        min_speedup=arguments.min_speedup,
        waived=frozenset(arguments.allow_degraded),
        fallback_fp32=arguments.fallback_fp32,
        saturates=saturates(arguments.target_cpu),
        **forms_for(arguments.targets),
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
        outline=arguments.outline,
        unfamiliar=arguments.unfamiliar,
        whiten=arguments.whiten,
        risk=arguments.risk,
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
        for form, row in network.evaluation.get("forms", {}).items():
            print(f"{network.name}: {form}: {'packed' if row['packed'] else 'left out'}: {row['why']}")
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


def _report(arguments: argparse.Namespace) -> int:
    from quantize.reports.report import ReportOptions, write_report

    measure = not arguments.no_measure
    options = ReportOptions(arguments.out, arguments.state, measure=measure, tensorrt_layers=arguments.tensorrt_layers)
    data = _data(arguments) if arguments.index or arguments.scenes else None
    report = write_report(arguments.bundle, options, data, _progress)
    if data is not None:
        _report_unreadable(data)
    print(f"{arguments.out / 'report.html'}: {len(report['models'])} models of bundle {report['bundle']['id']}")
    return 0


def _kit(arguments: argparse.Namespace) -> int:
    from quantize.reports.kit import write_kit

    if not arguments.index and not arguments.scenes:
        raise QuantizeError("a kit needs calibration pictures; give --index, --scenes or both, as for pack")
    data = _data(arguments)
    for line in write_kit(arguments.bundle, arguments.out, data, _progress):
        print(line)
    _report_unreadable(data)
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


def _progress(steps: Sequence[_Step], what: str) -> Iterable[_Step]:
    from tqdm import tqdm

    bar: Iterable[_Step] = tqdm(steps, desc=what, leave=False, disable=None)
    return bar


if __name__ == "__main__":
    sys.exit(main())
