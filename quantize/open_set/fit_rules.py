"""Fits the open-set rules of a bundle's new embedders, and says what a person must know about them."""

from __future__ import annotations

import logging
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from edge.errors import QuantizeError
from edge.inference.stages import Stages
from edge.manifest.embedder import EmbedderModel, OpenSet
from edge.silhouettes.rerank import GallerySilhouettes
from quantize.open_set.fit_thresholds import MIN_PREDICTIONS, ThresholdFit, evaluate_fit, fit_thresholds, is_enough
from quantize.open_set.gallery_rule import GalleryRows, cautious_rule, search_gallery_in_itself
from quantize.open_set.leave_items_out import Predictions, ScoredCrop, leave_items_out
from quantize.open_set.risk import fewest_pictures
from quantize.open_set.score_crops import KnownOutputs, embed_galleries, items_of, score_crops
from quantize.pictures import Sample
from quantize.probes.choose_probes import GalleryVectors

log = logging.getLogger(__name__)

NAMED_GATE = "named"  # its name for --allow-degraded
_NEXT_TO_NOTHING = 0.05  # share of the pictures of known items: a category that names fewer is of no use
_FEW = 0.5  # share of them below which packing warns
_LISTED = 5  # categories that a warning names


@dataclass(frozen=True, slots=True)
class NewEmbedder:
    """An embedder to fit rules for."""

    name: str  # in the bundle
    model: EmbedderModel
    gallery: Sequence[Sample]
    held_out: Sequence[Sample]


@dataclass(frozen=True, slots=True)
class FittedRules:
    """The rules of one embedder."""

    fits: dict[str, ThresholdFit]  # by category
    pictures: int  # held-out ones of items that the gallery has
    named: float | None  # share of them that are named rightly; None: there is none

    def evaluation(self) -> dict[str, object]:
        """Return the fits as the manifest stores them."""
        rows = {category: fit.row() for category, fit in self.fits.items()}
        named = None if self.named is None else round(self.named, 4)
        return {"open_set": rows, "named": named, "pictures": self.pictures}


def fit_rules(
    embedders: Sequence[NewEmbedder],
    stages: Stages,
    silhouettes: Mapping[str, GallerySilhouettes],
    known: KnownOutputs,
    false_accept: float | None,
    risk: float | None = None,
) -> tuple[dict[str, FittedRules], dict[str, GalleryVectors]]:
    """Fit a rule for each category with the forms that ship, because they embed the gallery.

    Args:
        embedders: the new ones.
        stages: all models of the bundle.
        silhouettes: silhouettes of each category that uses them in the score.
        known: what the models made of some pictures already.
        false_accept: share of the unknown objects that may be accepted; None: see `fit_thresholds`.
        risk: share of wrong names among all names; None: see `fit_thresholds`.

    Returns:
        the rules by embedder, and the gallery of each category.

    Raises:
        QuantizeError: the held-out pictures cannot show the risk.
    """
    rows = embed_galleries([crop for one in embedders for crop in one.gallery], stages, known)
    gathering = {category: one.model.gathering for one in embedders for category in one.model.categories}
    galleries = {name: GalleryVectors(found.shrunk(gathering[name]), found.items) for name, found in rows.items()}
    scored = score_crops([crop for one in embedders for crop in one.held_out], stages, galleries, silhouettes, known)
    predictions = leave_items_out(scored, items_of(galleries))
    categories = [category for one in embedders for category in one.model.categories]
    if is_enough(predictions):
        together = [] if stages.classifier else [_not_detected(one.model.categories, stages) for one in embedders]
        fits = fit_thresholds(predictions, categories, false_accept, together, risk)
    elif risk is not None:
        raise QuantizeError(
            f"--risk {risk:g}: fewer than {MIN_PREDICTIONS} held-out pictures are answered rightly or show unknown "
            f"items, which shows no risk; it takes more than {fewest_pictures(risk)} named ones. Hold out more pictures"
        )
    else:
        fits = {}
        for one in embedders:
            own = {name: rows[name] for name in one.model.categories if name in rows}
            crops = [crop for crop in scored if crop.category in one.model.categories]
            fits |= _cautious_fits(one.model, own, crops, predictions, false_accept)
    return {one.name: _described(one, fits, predictions) for one in embedders}, galleries


def require_naming(rules: Mapping[str, FittedRules], waived: Collection[str]) -> list[str]:
    """Check that at least one category names pictures of its items.

    Returns:
        the waived gates, as model.gate.

    Raises:
        QuantizeError: every category of every embedder names next to nothing, and nobody waived that.
    """
    shares = [fit.named for one in rules.values() for fit in one.fits.values() if one.pictures]
    best = max((share for share in shares if share is not None), default=0.0)
    if best >= _NEXT_TO_NOTHING or sum(one.pictures for one in rules.values()) < MIN_PREDICTIONS:
        return []
    gates = [f"{name}.{NAMED_GATE}" for name in rules]
    if chosen := [gate for gate in gates if gate in waived]:
        return chosen
    raise QuantizeError(
        f"the bundle can name nothing: at its threshold, the best category names {best:.0%} of the held-out "
        "pictures of items that it knows. Train longer, start from published weights, or give more pictures of each "
        f"item; or pack it all the same with --allow-degraded {gates[0]}"
    )


def _not_detected(categories: Sequence[str], stages: Stages) -> list[str]:
    """Return the categories that the detector does not name, so that a device searches all of them."""
    labels = stages.detector.model.labels if stages.detector else []
    return [category for category in categories if category not in labels]


def _cautious_fits(
    model: EmbedderModel,
    rows: Mapping[str, GalleryRows],
    held_out: Sequence[ScoredCrop],
    predictions: Predictions,
    false_accept: float | None,
) -> dict[str, ThresholdFit]:
    """Fit one rule for all categories of an embedder on its gallery's own pictures."""
    if not rows:
        rule = OpenSet(calibrated=False)
        why = "default: the gallery has no picture"
        return {name: evaluate_fit(rule, predictions, name, why) for name in model.categories}
    answers = search_gallery_in_itself(rows, model.gathering)
    rule = cautious_rule(answers, held_out, items_of(rows), false_accept)
    why = f"cautious, from the gallery's own pictures: fewer than {MIN_PREDICTIONS} held-out answers are right"
    fits = {name: evaluate_fit(rule, predictions, name, why) for name in model.categories}
    return {
        name: replace(fit, named=answers.named(name, rule.threshold)) if fit.named is None else fit
        for name, fit in fits.items()
    }


def _described(embedder: NewEmbedder, fits: Mapping[str, ThresholdFit], predictions: Predictions) -> FittedRules:
    own = {category: fits[category] for category in embedder.model.categories}
    for category, fit in own.items():
        log.info("%s: threshold %.3f, %s", category, fit.open_set.threshold, fit.rule)
    ours = predictions.known & np.isin(predictions.true_category, list(own))
    count = {category: (predictions.known & (predictions.true_category == category)).sum() for category in own}
    right = sum(count[category] * (fit.named or 0.0) for category, fit in own.items() if count[category])
    named = float(right / ours.sum()) if ours.any() else None
    return FittedRules(own, predictions.pictures(ours), named)


def warnings_about(rules: Mapping[str, FittedRules]) -> list[str]:
    """Return what a person must know about the rules of all new embedders, one sentence each."""
    fits = {category: fit for one in rules.values() for category, fit in one.fits.items()}
    pictures = sum(one.pictures for one in rules.values())
    few = f"fewer than {MIN_PREDICTIONS} held-out pictures are answered rightly" if pictures else "nothing is held out"
    found = []
    if not all(fit.open_set.calibrated for fit in fits.values()):
        found.append(
            f"{few}, so thresholds come from the gallery's own pictures, and answers have no probability; hold out "
            "more pictures of each item"
        )
    blind = {category: fit.named for category, fit in fits.items() if fit.named is not None}
    blind = {category: share for category, share in blind.items() if share < _NEXT_TO_NOTHING}
    if blind:
        listed = ", ".join(f"{category} ({share:.0%})" for category, share in list(blind.items())[:_LISTED])
        more = f" and {len(blind) - _LISTED} more" if len(blind) > _LISTED else ""
        found.append(
            f"{len(blind)} of {len(fits)} categories name next to none of the pictures of items they know: "
            f"{listed}{more}; train longer, or give more pictures of their items"
        )
    named = sum(one.pictures * (one.named or 0.0) for one in rules.values()) / max(1, pictures)
    if pictures and named < _FEW:
        found.append(
            f"the bundle names {named:.0%} of the held-out pictures of items that it knows, and not the others"
        )
    return found
