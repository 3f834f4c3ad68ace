"""The methods that benchmarks/methods.py compares, and their shared settings."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

EPOCHS = 6  # for a method with one pass over each picture; half with two
DIM = 192  # length of the joint vector of every trained method
SHORTER = (12, 24, 48, 96)
PICTURES = {"width": 64, "height": 64, "resize": "stretch", "mean": (0.5, 0.5, 0.5), "std": (0.5, 0.5, 0.5)}
WHOLE = {"name": "mobilenetv4_conv_small_050", "pretrained": "none", "strides": [16]}
BACKBONE = WHOLE | {"frozen_stages": 1}  # the stem keeps the classifier's weights
TEACHER = {"name": "mobilenetv2_100", "options": {"pad_type": ""}, "strides": [16]}
MILD = {
    "scale": (0.87, 1.14), "shift": 0.07, "stretch": 0.08, "rotate_deg": 4.0, "perspective": 0.015, "colour": 0.15,
    "flip": False, "blur": 0.4, "noise": 3.0, "erase": 0.0,
}  # fmt: skip


@dataclass(frozen=True)
class Method:
    """One method: a training, or vectors without training."""

    changes: dict[str, Any] = field(default_factory=dict)  # changes to the embedder's recipe
    passes: int = 1  # over each picture and epoch: 2 with region confusion
    untrained: str | None = None  # a FreeMethod


# The softmax that every method is compared with, and the batches of pairwise losses.
SHARED = {
    "scale": 16.0, "decorrelation": 0.1, "label_smoothing": 0.0, "dropout": 0.0, "centre_lr": 1.0,
    "images_per_class": 2,
}  # fmt: skip
PLAIN = {"heads": ["class"], "dim": DIM, "width": 0, "grid": 1, "pairs": 0.0, "decorrelation": 0.0}
BOTH = PLAIN | {"pool": "max_average"}
HARD = {"hdcl_from": 0.7, "hdcl_hardest": 2}
MFFG = {"heads": ["class", "local", "outline"], "dim": DIM // 3, "width": 64, "grid": 3, "pairs": 0.5}
ONE = MFFG | {"heads": ["class"], "dim": DIM}
TWO = MFFG | {"dim": DIM // 2}
METHODS = {
    "untuned average": Method(untrained="average"),
    "SCDA": Method(untrained="scda"),
    "SCDA+": Method(untrained="scda+"),
    "SCDA_flip+": Method(untrained="scda_flip+"),
    "plain pooling, softmax": Method(PLAIN),
    "MFFG guarded": Method(MFFG, passes=2),
    "MFFG literal, as printed": Method(MFFG | {"mode": "literal", "anchor": 0.0}, passes=2),
    "MFFG literal, anchored": Method(MFFG | {"mode": "literal"}, passes=2),
    "one head, softmax": Method(ONE | {"pairs": 0.0}),
    "one head, softmax and class pairs": Method(ONE),
    "MFFG guarded, class+local": Method(TWO | {"heads": ["class", "local"]}, passes=2),
    "MFFG guarded, class+outline": Method(TWO | {"heads": ["class", "outline"]}, passes=2),
    "MFFG guarded, sum": Method(MFFG | {"dim": DIM, "joint": "sum"}, passes=2),
    "[max;avg], softmax": Method(BOTH),
    "[max;avg], DGCRL": Method(BOTH | {"decorrelation": 0.1}),
    "[max;avg], HCL": Method(BOTH | HARD),
    "[max;avg], HDCL": Method(BOTH | HARD | {"decorrelation": 0.1}),
    "[max;avg], HDCL, alpha 100": Method(BOTH | HARD | {"decorrelation": 0.1, "scale": 100.0}),
    "contrastive": Method(PLAIN | {"loss": "contrastive"}),
    "triplet": Method(PLAIN | {"loss": "triplet"}),
    "proxy anchor": Method(PLAIN | {"loss": "proxy_anchor"}),
    "plain pooling, distilled": Method(PLAIN | {"teacher": "teacher", "distil": 5.0}),
    "Matryoshka": Method(PLAIN | {"shorter_dims": SHORTER}),
    "MFFG literal, as printed, random start": Method(
        MFFG | {"mode": "literal", "anchor": 0.0, "init_from": None, "backbone": WHOLE}, passes=2
    ),
    "plain pooling, softmax, twice as long": Method(PLAIN | {"optimiser": 2}),
    "MFFG guarded, twice as long": Method(MFFG | {"optimiser": 2}, passes=2),
}
CORE = [name for name in METHODS if name.startswith(("plain pooling, softmax", "MFFG", "one head"))][:6]
