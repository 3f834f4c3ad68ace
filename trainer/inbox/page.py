"""What an operator looks at while filling in the table: a page, `review.html`, and contact sheets.

Rules this module keeps:
1. The page runs no script and loads nothing from elsewhere. Every text in it is escaped.
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterator, Sequence
from html import escape
from pathlib import Path

import numpy as np

from dataset_formats.decode import read_image
from edge.errors import CaptureError
from edge.imaging.image import draw_text, encode_image, resize
from edge.types import Image
from trainer.contact_sheet import tile
from trainer.inbox.review import HOW, REVIEW_FILE, Case
from trainer.inbox.state import Proposal, ReviewFolder, write

PAGE_FILE = "review.html"
_SHOWN = 4  # pictures of a group
_CELL_PX, _TEXT_PX, _COLUMNS, _ROWS = 160, 16, 8, 6
_PNG = b"\x89PNG"
Thumbnail = Callable[[Proposal], "bytes | None"]

_HEAD = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>Review</title>
<meta http-equiv="Content-Security-Policy"
 content="default-src 'none'; img-src 'self' data:; style-src 'unsafe-inline'">
<meta name="viewport" content="width=device-width">
<style>
body {font: 16px system-ui, sans-serif; margin: 1.5rem; color: #222; background: #fafafa}
section {border-top: 1px solid #ccc; padding: 1rem 0; display: flex; flex-wrap: wrap; gap: 1rem}
section > div {min-width: 16rem; max-width: 24rem}
img.of {height: 160px; background: #ddd} figure {margin: 0; width: 10rem; font-size: .9rem; overflow-wrap: anywhere}
figure img, .none {height: 96px} .none {width: 96px; background: #eee}
dl {margin: 0; display: grid; grid-template-columns: auto 1fr; gap: .1rem .6rem; font-size: .9rem} dt {color: #666}
dd {margin: 0; overflow-wrap: anywhere} h2 {font-size: 1rem; margin: 0 0 .4rem} code {background: #eee}
</style></head><body>
"""


def review_page(cases: Sequence[Case], thumbnail: Thumbnail) -> bytes:
    """Return the page.

    Args:
        cases: what is to be decided.
        thumbnail: returns the picture of a proposed item, JPEG or PNG, if there is one.
    """
    title = f"<h1>{len(cases)} to review</h1>"
    how = f"<p>Write into the column <code>decision</code> of <code>{REVIEW_FILE}</code>: {escape(HOW)}.</p>\n"
    sections = "".join(_section(case, thumbnail) for case in cases)
    return f"{_HEAD}{title}{how}{sections}</body></html>\n".encode()


def write_sheets(review: ReviewFolder, cases: Sequence[Case]) -> int:
    """Write contact sheets with the first picture of each group, and remove the earlier sheets; return how many.

    Raises:
        DataError: one cannot be written.
    """
    for old in review.folder.glob("sheet-*.jpg"):
        old.unlink(missing_ok=True)
    cells = list(_cells(review.folder, cases))
    pages = [cells[start : start + _COLUMNS * _ROWS] for start in range(0, len(cells), _COLUMNS * _ROWS)]
    for number, page in enumerate(pages):
        write(review.folder / f"sheet-{number:03d}.jpg", encode_image(tile(page, _COLUMNS), ".jpg"))
    return len(pages)


def _section(case: Case, thumbnail: Thumbnail) -> str:
    first = case.members[0]
    facts = {
        "kind": "taught item" if first.kind == "taught" else "unknown object",
        "name": first.label,
        "category": case.category,
        "device": first.device,
        "camera": first.camera,
        "at": first.at,
        "reason": first.reason,
        "seen": str(len(case.members)),
    }
    rows = "".join(f"<dt>{name}</dt><dd>{escape(value)}</dd>" for name, value in facts.items() if value)
    pictures = "".join(f'<img class="of" alt="" src="{escape(name)}"> ' for name in case.pictures[:_SHOWN])
    near = "".join(_proposal(number, one, thumbnail(one)) for number, one in enumerate(case.proposals, 1))
    return f"<section><div><h2>{escape(case.group)}</h2><dl>{rows}</dl></div><p>{pictures}</p>{near}</section>\n"


def _proposal(number: int, one: Proposal, picture: bytes | None) -> str:
    shown = '<div class="none"></div>'
    if picture is not None:
        kind = "png" if picture.startswith(_PNG) else "jpeg"
        shown = f'<img alt="" src="data:image/{kind};base64,{base64.b64encode(picture).decode()}">'
    text = f"<b>accept {number}</b>: {escape(one.label)}<br>{escape(one.category)}/{escape(one.item)}, {one.score:.3f}"
    return f"<figure>{shown}<figcaption>{text}</figcaption></figure>"


def _cells(folder: Path, cases: Sequence[Case]) -> Iterator[Image]:
    for case in cases:
        drawn = np.full((_CELL_PX + _TEXT_PX, _CELL_PX, 3), 60, np.uint8)
        try:
            picture = read_image(folder / case.pictures[0])
        except CaptureError:
            continue  # the page shows that it is missing
        scale = _CELL_PX / max(picture.shape[:2])
        height, width = (max(1, round(side * scale)) for side in picture.shape[:2])
        drawn[:height, :width] = resize(picture, width, height, "area")
        draw_text(drawn, case.group[-22:], (2, _CELL_PX + 12), (255, 255, 255), 0.38)
        yield drawn
