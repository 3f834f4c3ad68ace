"""What a decision means, in plain words."""

from __future__ import annotations

_REASONS: dict[str, str] = {
    "too_small": "The object is too small to be recognised. Move closer, or give a larger picture.",
    "blurred": "The picture is blurred. Give a sharper one.",
    "low_margin": "Two items are almost equally near. Show another side, or add pictures of both to the gallery.",
    "unknown_item": "The nearest item is too far away to be named. The gallery may lack it, or shows it otherwise.",
    "unknown_category": "No category is likely enough. The bundle may not know things of this kind.",
    "gallery_empty": "The gallery holds no item of this category. Add some.",
    "not_looked_at": "The model of the likeliest category cannot be loaded now. See the log of the console.",
}
_STAGES = {
    "decode": "read the picture",
    "preprocess": "prepare the pictures for the models",
    "detect": "find the objects",
    "classify": "tell the category",
    "localise": "find the silhouette",
    "embed": "compute the vector",
    "postprocess": "read the models' answers",
    "search": "search the gallery",
    "decide": "decide",
}


def reason_text(reason: str | None) -> str:
    """Return why there is no answer, and what helps; empty if there is one."""
    return "" if reason is None else _REASONS.get(reason, reason)


def stage_text(stage: str) -> str:
    """Return what a stage does."""
    return _STAGES.get(stage, stage.replace("_", " "))
