"""Packs networks into a bundle folder: files, hashes, open-set rules, probes and `bundle.json`.

Rules this module keeps:
1. Nothing is written if a gate fails that is not waived by name.
2. The folder appears by one rename, after every file in it is on disk.
3. The packed models are loaded and the probes run before the rename.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path

from edge.bundle.bundle import Bundle, read_bundle
from edge.durable import fsync_folder, fsync_tree
from edge.errors import QuantizeError
from edge.inference.stages import Detector, Stages, load_stages
from edge.manifest.manifest import Manifest, parse_manifest
from quantize.build_network import Network
from quantize.bundle.contents import BundleContents
from quantize.bundle.embedding_spaces import assign_embedding_spaces
from quantize.bundle.fit_contents import declare_compatible, fit_classifier, fit_open_sets, fit_outlines
from quantize.bundle.fit_whitening import whiten_embedders
from quantize.bundle.pack_options import DEFAULT_GATHERING, PackOptions
from quantize.bundle.write_manifest import manifest_of
from quantize.dataset import Data
from quantize.probes.pack_probes import PackedProbes
from quantize.run_forms import open_form

MANIFEST = "bundle.json"


def pack(options: PackOptions, networks: Sequence[Network], data: Data) -> Manifest:
    """Write a bundle.

    Raises:
        QuantizeError: a gate fails, the networks do not fit together, or there are too few probes.
        BundleError: an older bundle is damaged, or the packed bundle cannot be read back.
        EngineError: a packed model cannot run.
    """
    require_gates(networks)
    _require_usable(options, networks)
    if options.out.exists():
        raise QuantizeError(f"{options.out} already exists; choose a new --out folder")
    options.out.parent.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix=f".{options.out.name}.", dir=options.out.parent))
    try:
        manifest = _write_contents(options, networks, data, folder)
        folder.chmod(0o755)
        fsync_tree(folder)
        folder.rename(options.out)
        fsync_folder(options.out.parent)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return manifest


def _require_usable(options: PackOptions, networks: Sequence[Network]) -> None:
    """Check that the options fit each other and the networks: none is without effect."""
    if options.false_accept is not None and options.risk is not None:
        raise QuantizeError("--false-accept and --risk choose one threshold in two ways; give one of them")
    asked = {
        f"classifier share {options.classifier_share:g}" if options.classifier_share else "",
        "" if options.false_accept is None else f"--false-accept {options.false_accept:g}",
        "" if options.risk is None else f"--risk {options.risk:g}",
        "" if options.whiten == "off" else f"--whiten {options.whiten}",
    } - {""}
    if asked and not any(network.spec.kind == "embedder" for network in networks):
        raise QuantizeError(f"{', '.join(sorted(asked))} needs a new embedder; give --embedder as well")


def require_gates(networks: Sequence[Network]) -> None:
    """Check that every gate passed or was waived.

    Raises:
        QuantizeError: a gate failed; the message names every failed gate.
    """
    if failed := [gate for network in networks for gate in network.failed]:
        raise QuantizeError(
            f"{len(failed)} failed gates: {'; '.join(failed)}. Use --allow-degraded MODEL.GATE or --fallback-fp32"
        )


def _write_contents(options: PackOptions, networks: Sequence[Network], data: Data, folder: Path) -> Manifest:
    contents = BundleContents(folder, PackedProbes(folder))
    (folder / "models").mkdir()
    older = [read_bundle(path) for path in options.compatible_with]
    base = None if options.base is None else read_bundle(options.base)
    share, gathering = _share_and_gathering(options, base)
    for network in networks:
        contents.add_network(network, gathering, keep_both=options.keep_both)
    if base is not None:
        contents.add_base_models(base)
    contents.models = assign_embedding_spaces(contents.models, networks, contents.provenance, share)
    stages = _fit(options, contents, networks, data)
    declare_compatible(older, contents, stages, networks, data, options.tolerance)
    contents.probes.drop_failing(stages)  # those of the base bundle
    if options.with_probes:
        contents.probes.add(stages, _detectors(stages, networks), contents.galleries, data)
        failed = [result for result in contents.probes.run(stages) if not result.passed]
        if failed:
            raise QuantizeError(f"probes: {len(failed)} gave another result when run again, first {failed[0]}")
    contents.data = data.summary()
    manifest = manifest_of(options.bundle_id, options.sequence, contents)
    text = manifest.model_dump_json(by_alias=True, indent=1)
    parse_manifest(text, str(folder / MANIFEST))
    (folder / MANIFEST).write_text(text, encoding="utf-8")
    return manifest


def _fit(options: PackOptions, contents: BundleContents, networks: Sequence[Network], data: Data) -> Stages:
    """Fit everything that the new networks need, in the order in which one builds on the other; return the models."""
    stages = _load(options, contents)
    familiarity = fit_classifier(contents, stages, networks, data, options.unfamiliar)
    if options.whiten != "off":
        contents.models, rows = whiten_embedders(
            contents.models, networks, stages, data, contents.folder, options.whiten
        )
        for name, row in rows.items():
            contents.evaluation[name]["whitening"] = row
    if familiarity is not None or options.whiten != "off":
        stages = _load(options, contents)
    fit_outlines(contents, stages, networks, data, options.outline)
    fit_open_sets(contents, stages, networks, data, options, familiarity)
    return stages


def _load(options: PackOptions, contents: BundleContents) -> Stages:
    return load_stages(contents.folder, manifest_of(options.bundle_id, options.sequence, contents), "onnxruntime")


def _detectors(stages: Stages, networks: Sequence[Network]) -> list[Detector]:
    """Return every form of a new detector, the one that ships first."""
    for network in networks:
        if network.spec.kind == "detector" and stages.detector is not None:
            others = [path for form, path in network.forms.items() if form != network.ship]
            model = stages.detector.model
            return [stages.detector, *(Detector(model, open_form(path)) for path in others)]
    return []


def _share_and_gathering(options: PackOptions, base: Bundle | None) -> tuple[float, float]:
    """Return the options' values; where they give none, those of the base bundle."""
    before = [] if base is None else base.manifest.embedders
    share, gathering = options.classifier_share, options.gathering
    if share is None:
        share = max((one.classifier_share for one in before), default=0.0)
    if gathering is None:
        gathering = max((one.gathering for one in before), default=DEFAULT_GATHERING)
    return share, gathering
