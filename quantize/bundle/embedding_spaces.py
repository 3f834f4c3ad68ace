"""Embedding spaces of a bundle: the parts of each embedder's vectors, and the id of the space."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from edge.errors import QuantizeError
from edge.manifest.embedder import EmbedderModel, Head
from edge.manifest.space_id import embedding_space_id
from edge.manifest.stages import ClassifierModel
from quantize.build_network import Network
from quantize.network_spec import Model


def assign_embedding_spaces(
    models: Sequence[Model], networks: Sequence[Network], provenance: Mapping[str, Any], share: float
) -> list[Model]:
    """Set heads, classifier share and space id of each new embedder.

    Args:
        models: models of the bundle: first the new networks, in their order, then the base bundle's.
        networks: the new networks.
        provenance: provenance of every model, by name.
        share: weight of the classifier's descriptor in each cosine.

    Raises:
        QuantizeError: the classifier has no descriptor, or an embedder of the base bundle needs the old classifier.
    """
    classifier = next((model for model in models if isinstance(model, ClassifierModel)), None)
    parts: list[Head] = []
    descriptor: dict[str, Any] | None = None
    if share:
        if classifier is None or not classifier.descriptor_dim:
            found = "the bundle has no classifier" if classifier is None else "the classifier has no descriptor"
            raise QuantizeError(f"classifier share {share:g}: {found}; train one with descriptor_dim")
        fp32_sha256, preprocess = provenance["classifier"]["fp32_sha256"], classifier.preprocess.model_dump(mode="json")
        parts = [Head(name="classifier", dim=classifier.descriptor_dim)]
        descriptor = {"fp32": fp32_sha256, "preprocess": preprocess, "share": share}
    finished: list[Model] = []
    for model, network in zip(models, networks, strict=False):
        if not isinstance(model, EmbedderModel):
            finished.append(model)
            continue
        heads = [*network.spec.heads, *parts]
        space = embedding_space_id(network.provenance["fp32_sha256"], network.spec.preprocess, heads, descriptor)
        finished.append(model.model_copy(update={"heads": heads, "classifier_share": share, "space_id": space}))
    for kept in models[len(networks) :]:
        if isinstance(kept, EmbedderModel) and kept.classifier_share and classifier in models[: len(networks)]:
            raise QuantizeError(
                f"the embedder of {', '.join(kept.categories)} in the base bundle uses the descriptor of the old "
                "classifier; give a new embedder together with the new classifier"
            )
        finished.append(kept)
    return finished
