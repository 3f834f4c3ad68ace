"""The page that says how good the recogniser is, for people who did not build it: one HTML file, no script."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path

from dataset_formats.records import Sample
from edge.errors import CaptureError
from edge.imaging.image import encode_image, read_image, shrink
from learn.judge import ENOUGH, Verdict
from learn.plan import Photos, distinct_labels, many

_PICTURE_PX = 200
_MOST_CONFUSIONS = 12


def headline(verdict: Verdict) -> str:
    """Return the result in one sentence; a percentage only where enough photos were held out."""
    if verdict.missed is not None:
        return _scene_headline(verdict, verdict.missed)
    total = len(verdict.answers)
    if not total:
        return "No photo was held out, so nobody knows yet how good it is. Add photos, and learn again."
    right, unknown, wrong = (verdict.count(outcome) for outcome in ("right", "unknown", "wrong"))
    if total < ENOUGH:
        return (
            f"Of {many(total, 'photo')} that it had not seen, it named {right} rightly, said “I don't know” to "
            f"{unknown}, and named {wrong} wrongly. That is too few photos for a percentage."
        )
    return (
        f"Of 100 photos that it had not seen, it names {100 * right / total:.0f} rightly, says “I don't know” to "
        f"{100 * unknown / total:.0f}, and names {100 * wrong / total:.0f} wrongly ({total} photos)."
    )


def _scene_headline(verdict: Verdict, missed: int) -> str:
    """Return the result for whole pictures."""
    right, unknown, wrong = (verdict.count(outcome) for outcome in ("right", "unknown", "wrong"))
    found, total = len(verdict.answers), len(verdict.answers) + missed
    if not total:
        return "No picture was held out, so nobody knows yet how good it is. Add pictures, and learn again."
    extra = (
        f" It also named {many(verdict.named_extra, 'thing')} that nobody had marked." if verdict.named_extra else ""
    )
    if total < ENOUGH:
        return (
            f"Of {many(total, 'object')} in pictures that it had not seen, it found {found}; it named {right} rightly, "
            f"said “I don't know” to {unknown}, and named {wrong} wrongly. That is too few for a percentage.{extra}"
        )
    share = 100 / total
    return (
        f"Of 100 objects in pictures that it had not seen, it finds {share * found:.0f}; it names {share * right:.0f} "
        f"rightly, says “I don't know” to {share * unknown:.0f}, and names {share * wrong:.0f} wrongly "
        f"({total} objects).{extra}"
    )


def render_page(
    name: str,
    photos: Photos,
    verdict: Verdict,
    how: str,
    advice: Sequence[str],
    shown: Mapping[str, Sample],
    warnings: Sequence[str],
) -> str:
    """Render the page.

    Args:
        name: of the recogniser.
        photos: counts of what it learned from.
        verdict: its answers to held-out photos.
        how: what was done, and with which weights.
        advice: what to photograph next.
        shown: one photo of each item.
        warnings: what a person must know.
    """
    labels = distinct_labels(shown)
    parts = [f"<h1>{escape(name)}</h1>", f"<p class=headline>{escape(headline(verdict))}</p>"]
    if verdict.answers:
        parts.append(_bar(verdict))
        parts.append(
            f"<p>Asked for the most similar photo, named or not, it finds the right one for {verdict.nearest_right} of "
            f"{len(verdict.answers)}, and one of the right category for {verdict.categories_right}. One look takes "
            f"{verdict.millis:.0f} ms here.</p>"
            "<p>These photos come from the same folders. Photos of another day or place are harder, so show it some of "
            "those, too.</p>"
        )
    parts.append(f"<p>It knows {photos.told}.</p>")
    parts += [f"<p class=warning>{escape(line)}</p>" for line in warnings]
    confusions = verdict.confusions()[:_MOST_CONFUSIONS]
    if confusions:
        cards = "".join(_confusion(*one, shown, labels) for one in confusions)
        text = (
            "Left: the photo. Right: what it was taken for. Photos of both side by side, in the same light, help most."
        )
        parts.append(f"<h2>Worst confusions</h2><p>{text}</p><div class=cards>{cards}</div>")
    if advice:
        parts.append(
            "<h2>What to photograph next</h2><ul>" + "".join(f"<li>{escape(x)}</li>" for x in advice) + "</ul>"
        )
        parts.append(
            "<p>Ten photos of an item are a good number: from several sides, in different light, as the camera sees "
            "it. Put them into the item's folder and run the same command again.</p>"
        )
    parts.append(f"<h2>How it was made</h2><p>{escape(how)}</p>")
    head = f'<meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">{_STYLE}'
    body = "\n".join(parts)
    return (
        f"<!doctype html>\n<html lang=en><head>{head}<title>{escape(name)}</title></head>\n<body><main>{body}</main>\n"
    )


def _bar(verdict: Verdict) -> str:
    total = len(verdict.answers)
    cells = []
    for outcome, word in (("right", "right"), ("unknown", "I don't know"), ("wrong", "wrong")):
        count = verdict.count(outcome)  # type: ignore[arg-type]
        if count:
            title = f"{count} {word}"
            cells.append(f'<span class={outcome} style="flex:{count / total:.4f}" title="{title}">{title}</span>')
    return f"<div class=bar>{''.join(cells)}</div>"


def _confusion(
    true: str, named: str, times: int, photo: Sample, shown: Mapping[str, Sample], labels: Mapping[str, str]
) -> str:
    pictures = _picture(photo.path) + (_picture(shown[named].path) if named in shown else "")
    text = f"{labels.get(true, true)} was taken for {labels.get(named, named)}"
    often = f", {times} times" if times > 1 else ""
    return f"<figure>{pictures}<figcaption>{escape(text + often)}</figcaption></figure>"


def _picture(path: Path) -> str:
    try:
        image_rgb = read_image(path)
    except CaptureError:
        return ""
    data = base64.b64encode(encode_image(shrink(image_rgb, _PICTURE_PX), ".jpg", 85)).decode()
    return f'<img alt="" src="data:image/jpeg;base64,{data}">'


_STYLE = """<style>
:root{color-scheme:light dark}
body{font:17px/1.5 system-ui,sans-serif;margin:0;background:Canvas;color:CanvasText}
main{max-width:46rem;margin:auto;padding:1.5rem}
h1{margin:0 0 .5rem}h2{margin-top:2rem}
.headline{font-size:1.25rem}
.bar{display:flex;gap:2px;border-radius:8px;overflow:hidden;margin:1rem 0}
.bar span{padding:.5rem;color:#fff;white-space:nowrap;overflow:hidden;min-width:2px;font-size:.9rem}
.right{background:#1b7f3b}.unknown{background:#667}.wrong{background:#b3261e}
.warning{border-left:4px solid #c77700;padding-left:.75rem}
.cards{display:grid;grid-template-columns:repeat(auto-fill,minmax(15rem,1fr));gap:1rem}
figure{margin:0}figure img{width:48%;aspect-ratio:1;object-fit:cover;margin-right:2%;border-radius:6px}
figcaption{font-size:.9rem}
</style>"""
