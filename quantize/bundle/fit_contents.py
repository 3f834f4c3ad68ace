"""Fits what the new networks of a bundle need, with the forms that ship, on held-out pictures.

The least logit of a classifier; the weight of silhouettes, the open-set rules and the galleries of older bundles that
may be searched, of each embedder.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any, Literal

from edge.bundle.bundle import Bundle
from edge.errors import QuantizeError
from edge.inference.stages import Stages
from edge.manifest.stages import ClassifierModel
from edge.silhouettes.rerank import silhouettes_for
from quantize.build_network import Network
from quantize.bundle.backward_compatible import check_compatibility
from quantize.bundle.contents import BundleContents
from quantize.bundle.fit_silhouettes import LabelledSilhouettes, Mode, fit_categories
from quantize.bundle.pack_options import PackOptions
from quantize.compare import Vectors
from quantize.dataset import Data
from quantize.open_set.familiarity import Familiarity, fit_familiarity
from quantize.open_set.fit_rules import NewEmbedder, fit_rules, require_naming, warnings_about
from quantize.open_set.score_crops import KnownOutputs
from quantize.run_forms import embed_samples, silhouettes_of

log = logging.getLogger(__name__)


def fit_classifier(
    contents: BundleContents, stages: Stages, networks: Sequence[Network], data: Data, share: float
) -> Familiarity | None:
    """Fit the least logit of a new classifier; None without one."""
    for number, network in enumerate(networks):
        model = contents.models[number]
        if isinstance(model, ClassifierModel) and stages.classifier is not None:
            found = fit_familiarity(stages.classifier, data.held_out_crops(network.spec), share)
            if found is not None:
                contents.models[number] = model.model_copy(update={"least_logit": found.least_logit})
                contents.evaluation[network.name]["familiar"] = {"least_logit": found.least_logit, "share": share}
            return found
    return None


def fit_outlines(
    contents: BundleContents,
    stages: Stages,
    networks: Sequence[Network],
    data: Data,
    wanted: Mode | Literal["off"] | None,
) -> None:
    """Fit the weight of silhouettes of each new embedder, and keep the gallery's silhouettes where it is above 0.

    Raises:
        QuantizeError: a mode is named, and the bundle has no localiser or no new embedder, or a category has no
            held-out picture to choose the weight of that mode by.
    """
    kinds = {network.spec.kind for network in networks}
    if wanted == "off" or (wanted is None and "localiser" not in kinds):
        return
    if stages.localiser is None:
        raise QuantizeError(f"outline {wanted}: the bundle has no localiser; give --localiser")
    if wanted is not None and "embedder" not in kinds:
        raise QuantizeError(f"outline {wanted}: the mode is fitted for new embedders; give --embedder as well")
    for number, network, model in contents.new_embedders(networks):
        embedder = stages.embedders[model.categories[0]]
        held_out, gallery = (
            LabelledSilhouettes(crops, embed_samples(embedder, crops), silhouettes_of(stages.localiser, crops))
            for crops in (data.held_out_crops(network.spec), data.gallery_crops(network.spec))
        )
        fits = fit_categories(model.categories, held_out, gallery, model.gathering, wanted)
        if wanted is not None and (missing := [name for name in model.categories if name not in fits]):
            raise QuantizeError(
                f"outline {wanted}: category {missing[0]} has no held-out or no gallery picture to choose its weight "
                "by; give some, or take iou_only, which has no weight"
            )
        for category, fit in fits.items():
            log.info("%s: %s: silhouettes %s", network.name, category, fit.row())
        rules = {category: fit.rule for category, fit in fits.items() if fit.rule.counts}
        contents.silhouettes |= {name: silhouettes_for(rule, gallery.by_item(name)) for name, rule in rules.items()}
        contents.models[number] = model.model_copy(update={"outline": rules})
        contents.evaluation[network.name]["outline"] = {category: fit.row() for category, fit in fits.items()}


def fit_open_sets(
    contents: BundleContents,
    stages: Stages,
    networks: Sequence[Network],
    data: Data,
    options: PackOptions,
    familiarity: Familiarity | None,
) -> None:
    """Fit an open-set rule for each category of a new embedder.

    Raises:
        QuantizeError: the held-out pictures cannot show the risk, or the rules name nothing.
    """
    found = list(contents.new_embedders(networks))  # models of the base bundle have their own rules
    embedders = [
        NewEmbedder(network.name, model, data.gallery_crops(network.spec), data.held_out_crops(network.spec))
        for _, network, model in found
    ]
    probabilities = {
        crop: row for one in networks if one.spec.kind == "classifier" for crop, row in one.outputs.items()
    }
    known = KnownOutputs(
        probabilities if familiarity is None else familiarity.scaled(probabilities),
        {
            crop: row
            for _, network, model in found
            if not (model.classifier_share or model.whitening)
            for crop, row in network.outputs.items()
        },
    )
    rules, contents.galleries = fit_rules(
        embedders, stages, contents.silhouettes, known, options.false_accept, options.risk
    )
    contents.waived += require_naming(rules, options.waived)
    contents.evaluation["warnings"] = warnings_about(rules)
    for number, network, model in found:
        rule = rules[network.name]
        open_sets = {category: fit.open_set for category, fit in rule.fits.items()}
        contents.models[number] = model.model_copy(update={"open_set": open_sets})
        contents.evaluation[network.name] |= rule.evaluation()


def declare_compatible(
    older: Sequence[Bundle],
    contents: BundleContents,
    stages: Stages,
    networks: Sequence[Network],
    data: Data,
    tolerance: float,
) -> None:
    """Declare which galleries of older bundles may be searched, measured with the forms that ship."""
    if not older:
        return
    for number, network, model in contents.new_embedders(networks):
        crops = data.held_out_crops(network.spec), data.gallery_crops(network.spec)
        vectors = Vectors(*(embed_samples(stages.embedders[model.categories[0]], part) for part in crops))
        results = [one for old in older for one in check_compatibility(old, model, vectors, crops, tolerance)]
        rows: dict[str, Any] = {}
        for result in results:
            log.info("%s: %s", network.name, result)
            rows.setdefault(result.bundle_id, {})[result.category] = result.row()
        declared = [result.declared for result in results if result.declared]
        contents.models[number] = model.model_copy(update={"compatible": declared})
        if rows:
            contents.evaluation[network.name]["compatible"] = rows
