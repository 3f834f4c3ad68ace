"""Packs a bundle from training runs or exported models: what `edge-quantize pack` does, for other programs as well."""

from __future__ import annotations

import logging
import re
import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from edge.file_names import file_name
from edge.manifest.manifest import Manifest
from edge.manifest.model import Target
from quantize.build_network import Network, Policy, build_network
from quantize.bundle.pack import pack
from quantize.bundle.pack_options import PackOptions
from quantize.forms.form_of import FOR_TENSORRT
from quantize.forms.ort_u8 import lacks_dot_product
from quantize.forms.write_forms import Progress
from quantize.latency import cpu_info
from quantize.network_spec import Spec
from quantize.pictures import Picture, of_splits

if TYPE_CHECKING:
    from quantize.dataset import Data

log = logging.getLogger(__name__)

RUN_CARD = "model.json"  # in the folder of a training run
_DERIVED = re.compile(r"|[A-Za-z0-9-]{1,40}~[0-9a-z]{1,10}")  # a file name that `edge.file_names` gave, or none


@dataclass(frozen=True, slots=True)
class PackSources:
    """The networks of a bundle: for each a training run, or an exported ONNX file with its spec beside it."""

    detector: Path | None = None
    detector_spec: Path | Spec | None = None  # of a detector that is an ONNX file from elsewhere
    classifier: Path | None = None
    localiser: Path | None = None
    finder: Path | None = None
    embedders: tuple[Path, ...] = ()  # a folder that holds one run for each category stands for all of them


@dataclass(frozen=True, slots=True)
class PackedBundle:
    """A bundle that was written."""

    folder: Path
    manifest: Manifest
    networks: tuple[Network, ...]
    warnings: tuple[str, ...]  # what a person must know before this bundle goes to a device, one sentence each


def pack_bundle(
    options: PackOptions,
    sources: PackSources,
    data: Data,
    policy: Policy | None = None,
    *,
    work: Path | None = None,
    progress: Progress[Picture] | None = None,
) -> PackedBundle:
    """Export, quantise and compare the networks, and pack them into a bundle folder.

    Args:
        options: the bundle.
        sources: its networks.
        data: pictures to calibrate, compare and fit on, see `quantize.dataset.read_data`.
        policy: conditions on the form that ships; None: the defaults.
        work: folder to keep the exported and quantised models in; None: they are deleted.
        progress: wraps the pictures of a long loop, with a description; None: they go through as they are.

    Raises:
        TrainError: a training run cannot be loaded.
        QuantizeError: a network cannot be built, a gate fails, or the bundle could name nothing.
        BundleError, EngineError, CaptureError: a packed model cannot be read back or run, or a picture not be read.
    """
    policy, progress = policy or Policy(), progress or _quietly
    with _folder_or_scratch(work) as folder:
        networks = [
            build_network(name, source, folder, data, policy, progress, spec)
            for name, source, spec in named_sources(sources)
        ]
        manifest = pack(replace(options, waived=options.waived | policy.waived), networks, data)
    warnings = (*manifest.evaluation["warnings"], *_not_embedded(manifest, data), *data.unreadable())
    return PackedBundle(options.out, manifest, tuple(networks), warnings)


def _not_embedded(manifest: Manifest, data: Data) -> list[str]:
    """Return a line about the gallery pictures of categories that no embedder embeds; none if there are none."""
    embedded = {category for embedder in manifest.embedders for category in embedder.categories}
    crops = of_splits(data.samples, data.gallery_splits)
    left_out = Counter(sample.category for sample in crops if sample.category not in embedded)
    if not embedded or not left_out:
        return []
    listed = ", ".join(f"{category} ({count})" for category, count in left_out.most_common(5))
    what = f"left out {left_out.total()} gallery pictures of {len(left_out)} categories that no embedder embeds"
    return [f"{what}: {listed}{', …' if len(left_out) > 5 else ''}"]


def named_sources(sources: PackSources) -> Iterator[tuple[str, Path, Path | Spec | None]]:
    """Yield the name in the bundle, the source and the spec of each network."""
    single = (
        ("detector", sources.detector, sources.detector_spec),
        ("classifier", sources.classifier, None),
        ("localiser", sources.localiser, None),
        ("finder", sources.finder, None),
    )
    yield from ((name, source, spec) for name, source, spec in single if source is not None)
    runs = [run for source in sources.embedders for run in runs_in(source)]
    labels = [_label(run) for run in runs]
    alike = Counter(label.casefold() for label in labels)
    for number, (label, run) in enumerate(zip(labels, runs, strict=True)):
        yield f"embedder-{label if label and alike[label.casefold()] == 1 else number}", run, None


def runs_in(source: Path) -> list[Path]:
    """Return the training runs in a folder that is none itself, as one_per_category writes them; else the source."""
    if not source.is_dir() or (source / RUN_CARD).is_file():
        return [source]
    return sorted(card.parent for card in source.glob(f"*/{RUN_CARD}")) or [source]


def _label(source: Path) -> str:
    name = source.stem if source.suffix == ".onnx" else source.name
    label = name.removeprefix("embedder").strip("-_.")
    return label if _DERIVED.fullmatch(label) else file_name(label)


def saturates(target_cpu: str) -> bool:
    """Return whether INT8 must be exact on CPUs without an 8-bit dot product: `this`, `dot-product` or `any`."""
    return lacks_dot_product(cpu_info()) if target_cpu == "this" else target_cpu == "any"


def forms_for(targets: Iterable[str]) -> dict[str, frozenset[Target]]:
    """Return the fields of a Policy that these targets mean: `cpu`, `tensorrt`, or forms by name."""
    named = frozenset(form for form in FOR_TENSORRT if form in targets)
    return {"further": frozenset(FOR_TENSORRT) if "tensorrt" in targets else named, "required": named}


@contextmanager
def _folder_or_scratch(work: Path | None) -> Iterator[Path]:
    if work is not None:
        work.mkdir(parents=True, exist_ok=True)
        yield work
        return
    with tempfile.TemporaryDirectory(prefix="finesight-pack-") as folder:
        yield Path(folder)


def _quietly(pictures: Sequence[Picture], what: str) -> Iterable[Picture]:  # noqa: ARG001 as tqdm is called
    return pictures
