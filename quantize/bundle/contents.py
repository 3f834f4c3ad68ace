"""What a bundle holds while it is packed: models, their files, and what was measured of them."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from edge.bundle.bundle import Bundle
from edge.errors import QuantizeError
from edge.manifest.embedder import EmbedderModel
from edge.manifest.model import Target
from edge.manifest.stages import FinderModel
from edge.silhouettes.rerank import GallerySilhouettes
from quantize.build_network import Network
from quantize.bundle.base_bundle import kept_models
from quantize.network_spec import Model, conversion_int8_path, conversion_path, model_entry
from quantize.onnx_file import check_fits
from quantize.probes.choose_probes import GalleryVectors
from quantize.probes.pack_probes import PackedProbes


@dataclass(slots=True)
class BundleContents:
    """The contents of a bundle while it is packed."""

    folder: Path
    probes: PackedProbes
    models: list[Model] = field(default_factory=list)
    evaluation: dict[str, Any] = field(default_factory=dict)
    provenance: dict[str, Any] = field(default_factory=dict)
    data: dict[str, Any] = field(default_factory=dict)  # what the readers of the data sets left out and noticed
    waived: list[str] = field(default_factory=list)
    galleries: dict[str, GalleryVectors] = field(default_factory=dict)
    silhouettes: dict[str, GallerySilhouettes] = field(default_factory=dict)  # by category, if weighted

    def add_network(self, network: Network, gathering: float, *, keep_both: bool) -> None:
        """Copy the forms of a network that ship, and note what was measured of it.

        Args:
            network: the network.
            gathering: of an embedder, see `PackOptions`.
            keep_both: pack FP32 beside INT8, and INT8 that is accurate beside FP32.
        """
        entry = _copy_forms(network, self.folder, keep_both=keep_both)
        if isinstance(entry, EmbedderModel):
            entry = entry.model_copy(update={"gathering": gathering})
        self.models.append(entry)
        self.evaluation[network.name] = {"ship": network.ship, "why": network.why, **network.evaluation}
        self.provenance[network.name] = network.provenance
        self.waived += network.waived

    def add_base_models(self, base: Bundle) -> None:
        """Copy the models of the base bundle that no network replaces, with their evaluation and probes.

        Probes of a model that is replaced are not copied: the new model gives other answers.

        Raises:
            QuantizeError: a new network has the name of a kept one.
        """
        for kept in kept_models(base.manifest, self.models):
            if kept.name in self.evaluation:
                raise QuantizeError(
                    f"{kept.name} is also in base bundle {base.manifest.bundle_id}; rename the run folder or file of "
                    "the new network"
                )
            further = list(kept.model.conversions) if isinstance(kept.model, FinderModel) else []
            if isinstance(kept.model, EmbedderModel) and kept.model.whitening is not None:
                further.append(kept.model.whitening.file)
            for path in (*kept.model.files.values(), *further):
                shutil.copyfile(base.path(path), self.folder / path)
            for path in kept.model.files.values():
                check_fits(self.folder / path, kept.model, base.path(path))
            self.models.append(kept.model)
            self.evaluation[kept.name] = kept.evaluation
            self.provenance[kept.name] = kept.provenance
            self.waived += kept.waived
            self.probes.copy_from(base, kept.model)

    def new_embedders(self, networks: Sequence[Network]) -> Iterator[tuple[int, Network, EmbedderModel]]:
        """Yield number, network and model of each new embedder; the models of new networks come first."""
        for number, network in enumerate(networks):
            model = self.models[number]
            if isinstance(model, EmbedderModel) and model.categories:
                yield number, network, model


def _copy_forms(network: Network, folder: Path, *, keep_both: bool) -> Model:
    """Copy the forms of a network that ship."""
    wanted: list[Target] = [network.ship, *network.further]
    if keep_both:
        wanted += ["fp32"]
        wanted += ["ort-u8"] if "ort-u8" in network.forms and network.int8_accurate else []
    files: dict[Target, str] = {}
    for target in dict.fromkeys(wanted):
        files[target] = f"models/{network.name}.{target}.onnx"
        shutil.copyfile(network.forms[target], folder / files[target])
    if network.spec.kind != "finder":
        return model_entry(network.spec, files, network.ship, network.why)
    fp32 = network.forms["fp32"]
    conversion, conversion_int8 = f"models/{conversion_path(Path(network.name)).name}", None
    shutil.copyfile(conversion_path(fp32), folder / conversion)
    if "ort-u8" in files and (source := conversion_int8_path(fp32)).is_file():
        conversion_int8 = f"models/{conversion_int8_path(Path(network.name)).name}"
        shutil.copyfile(source, folder / conversion_int8)
    return model_entry(network.spec, files, network.ship, network.why, conversion, conversion_int8)
