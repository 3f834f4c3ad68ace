"""Choose the thresholds of a bundle by the promise that a device's configuration asks for.

Rules this module keeps:
1. A bundle has thresholds for some shares (`operating_points`, `risk_points`). That for the largest share which is not
   above the asked one is used, so the promise holds.
2. A bundle that has none, because its pictures could not show it, is refused: it would promise what nobody measured.
"""

from __future__ import annotations

from collections.abc import Mapping

from edge.config.schema import GalleryConfig
from edge.errors import BundleError
from edge.manifest.embedder import OpenSet


def at_operating_point(open_sets: Mapping[str, OpenSet], config: GalleryConfig) -> dict[str, OpenSet]:
    """Return the rules with the thresholds that the configuration asks for; as they are if it asks for none.

    Args:
        open_sets: by category.
        config: of the device.

    Raises:
        BundleError: a rule has no threshold for a share as small as the asked one.
    """
    if config.risk is not None:
        return {
            name: _at(name, rule, rule.risk_points, config.risk, "risk", "--risk") for name, rule in open_sets.items()
        }
    if config.false_accept is not None:
        return {
            name: _at(name, rule, rule.operating_points, config.false_accept, "false_accept", "--false-accept")
            for name, rule in open_sets.items()
        }
    return dict(open_sets)


def _at(category: str, rule: OpenSet, points: Mapping[str, float], asked: float, key: str, option: str) -> OpenSet:
    shares = {share: cosine for text, cosine in points.items() if (share := _share(text)) is not None}
    usable = [share for share in shares if share <= asked * (1 + 1e-9)]
    if not usable:
        known = ", ".join(f"{share:g}" for share in sorted(shares))
        has = f"has thresholds for {known}; choose one of these, " if known else "has no such thresholds: "
        raise BundleError(
            f"category {category!r}: gallery.{key} is {asked:g}, and the bundle {has}"
            f"remove the key, or pack the bundle with {option} {asked:g} and more held-out pictures"
        )
    return rule.model_copy(update={"threshold": shares[max(usable)]})


def _share(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None
