"""The spaces that the embedders of a bundle map to: which parts their vectors have, and what names them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from edge.errors import QuantizeError
from edge.manifest import ClassifierModel, EmbedderModel, Head, embedding_space_id
from quantize.build import Network
from quantize.network_spec import Model


def named(
    models: Sequence[Model], networks: Sequence[Network], provenance: Mapping[str, Any], share: float
) -> list[Model]:
    """Give each embedder that is packed anew the classifier's part of its vectors, if any, and its space a name.

    Args:
        models: of the bundle: those of the networks, in their order, then those taken from another bundle.
        networks: that are packed anew.
        provenance: of every model, by name.
        share: of a cosine, what the classifier's descriptor counts.

    Raises:
        QuantizeError: no classifier describes crops, or another one has a part in an embedder that is taken over.
    """
    classifier = next((model for model in models if isinstance(model, ClassifierModel)), None)
    parts: list[Head] = []
    taken: dict[str, Any] | None = None
    if share:
        if classifier is None or not classifier.descriptor_dim:
            found = "no classifier" if classifier is None else "a classifier that does not describe"
            raise QuantizeError(
                f"found {found}, expected one trained with descriptor_dim, for it shall have {share:g} of each cosine"
            )
        master, given = provenance["classifier"]["fp32_sha256"], classifier.preprocess.model_dump(mode="json")
        parts = [Head(name="classifier", dim=classifier.descriptor_dim)]
        taken = {"fp32": master, "preprocess": given, "share": share}
    judged: list[Model] = []
    for model, network in zip(models, networks, strict=False):
        if not isinstance(model, EmbedderModel):
            judged.append(model)
            continue
        heads = [*network.spec.heads, *parts]
        space = embedding_space_id(network.provenance["fp32_sha256"], network.spec.preprocess, heads, taken)
        judged.append(model.model_copy(update={"heads": heads, "classifier_share": share, "space_id": space}))
    for carried in models[len(networks) :]:
        if isinstance(carried, EmbedderModel) and carried.classifier_share and classifier in models[: len(networks)]:
            raise QuantizeError(
                f"the embedder of {carried.categories} is taken over and has a part of its vectors from the "
                "classifier before, found a new classifier, expected a new embedder, too"
            )
        judged.append(carried)
    return judged
