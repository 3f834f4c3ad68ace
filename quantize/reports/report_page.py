"""The report as one HTML page: its pictures and style are inside, it has no script and asks no network for anything."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from edge.imaging.image import encode_image
from quantize.reports.accuracy import Flip
from quantize.reports.report_style import STYLE
from quantize.reports.report_tables import (
    accuracy_table,
    anchor,
    fusion_section,
    gate_table,
    latency_table,
    needs_a_look,
    speed_of,
    summary_table,
)

Flips = Mapping[tuple[str, str], Sequence[Flip]]  # by model and form
_OPEN_AT_MOST = 4  # models whose details are shown at once
_MOST_PICTURES = 240  # on the whole page


def render_page(report: Mapping[str, Any], flips: Flips) -> str:
    """Render the whole page.

    Args:
        report: what `quantize.reports.report` writes as JSON.
        flips: the pictures whose answer changes.
    """
    bundle, models = report["bundle"], report["models"]
    title = f"Bundle {bundle['id']}: what each form gains and costs"
    body = [f"<h1>{escape(title)}</h1>", f"<p>{escape(_about(report))}</p>", _tiles(report)]
    look = needs_a_look(models)
    if look or bundle["waived"] or bundle["warnings"]:
        lines = [*(f"waived: {gate}" for gate in bundle["waived"]), *bundle["warnings"]]
        listed = "".join(f"<li>{escape(line)}</li>" for line in lines)
        listed += "".join(
            f'<li><a href="#{anchor(name)}">{escape(name)}</a>: {escape(why)}</li>' for name, why in look[:40]
        )
        more = f"<li>and {len(look) - 40} more</li>" if len(look) > 40 else ""
        body.append(_section("Look at these first", f"<ul>{listed}{more}</ul>"))
    body.append(_section("All models", summary_table(models), _SUMMARY))
    shown = 0
    for model in models:
        pictures, used = _flips(model, flips, _MOST_PICTURES - shown)
        shown += used
        body.append(_model(model, pictures, is_open=len(models) <= _OPEN_AT_MOST))
    policy = "default-src 'none'; img-src data:; style-src 'sha256-" + _sha256(STYLE) + "'; base-uri 'none'"
    head = (
        '<meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}"><style>{STYLE}</style>'
    )
    page = "\n".join(body)
    return (
        f"<!doctype html>\n<html lang=en><head>{head}<title>{escape(title)}</title></head>\n<body><main>{page}</main>"
    )


_SUMMARY = "Changed answers: pictures whose answer differs from FP32's, of those compared. Fastest: on this machine."
_CLOCK = (
    "Medians of one picture on one thread, the engines in turn; CPU time of the process, on a GPU wall time. "
    "Memory: what loading the model added to a process."
)


def _sha256(text: str) -> str:
    return base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def _about(report: Mapping[str, Any]) -> str:
    made, bundle = report["made"], report["bundle"]
    text = f"Sequence {bundle['sequence']}, packed {bundle['created_at']}"
    text += f" on {bundle['packed_on']}. " if bundle["packed_on"] else ". "
    engines = ", ".join(made["engines"]) or "nothing was run"
    text += f"Report made {made['at']} on {made['cpu']}, {made['cores']} cores, load {made['load_1_min']}: {engines}."
    if made["not_tried"]:
        text += f" Not tried: {'; '.join(f'{name}: {why}' for name, why in made['not_tried'].items())}."
    if made["load_1_min"] > (made["cores"] or 1):
        text += " The machine was busy: trust the order of the times, not their size."
    source = "measured for this report" if made["accuracy_measured"] else "as measured when the bundle was packed"
    return f"{text} Accuracy is {source}."


def _tiles(report: Mapping[str, Any]) -> str:
    models = report["models"]
    int8 = sum(model["ship"] not in {"fp32", "fp16"} for model in models)
    changed = [one for model in models for one in model["measured"].values()]
    tiles = [
        (str(len(models)), "models"),
        (f"{report['bundle']['bytes'] / 1e6:.1f} MB", "of files"),
        (f"{int8} of {len(models)}", "ship INT8"),
    ]
    if changed:
        tiles.append(
            (f"{sum(one['changed'] for one in changed)}", f"answers changed of {sum(o['of'] for o in changed)}")
        )
    speeds = sorted(speed for model in models if (speed := speed_of(model)) is not None)
    if speeds:
        tiles.append((f"{speeds[len(speeds) // 2]:.2f}x", "median speed, fastest form over FP32"))
    return f"<div class=tiles>{''.join(f'<div><b>{a}</b><span>{b}</span></div>' for a, b in tiles)}</div>"


def _section(title: str, content: str, text: str = "") -> str:
    return f"<section><h2>{escape(title)}</h2>{f'<p>{escape(text)}</p>' if text else ''}{content}</section>"


def _model(model: Mapping[str, Any], pictures: str, *, is_open: bool) -> str:
    """Render one model: the decision, then what it rests on."""
    parts = [f"<p>Ships <b>{escape(model['ship'])}</b>: {escape(model['why'] or 'no reason is recorded')}.</p>"]
    for form, told in model["packed"].get("forms", {}).items():
        state = "packed" if told.get("packed") else "left out"
        parts.append(f"<p>{escape(form)}: {state}, {escape(told.get('why', ''))}.</p>")
    if chosen := model["chosen"]:
        text = f"The device runs {chosen['engine']} {chosen['form']} since {chosen['since']}: {chosen['reason']}"
        parts.append(f"<p>{escape(text)}.</p>")
        failed = [f"{one['backend']} {one['form']}: {one['problem']}" for one in chosen["tried"] if one["problem"]]
        parts += [f"<p class=warn>{escape(line)}</p>" for line in failed]
    if table := accuracy_table(model):
        parts.append(f"<h3>Accuracy</h3>{table}{gate_table(model)}")
    parts.append(pictures)
    if model.get("latency"):
        parts.append(f"<h3>Time and memory on this machine</h3><p>{_CLOCK}</p>{latency_table(model)}")
    if model.get("fusion"):
        parts.append(f"<h3>Convolutions by engine and form</h3>{fusion_section(model)}")
    about = f"{model['kind']}, {model['input']}, {sum(model['bytes'].values()) / 1e6:.2f} MB"
    summary = f"<summary>{escape(model['name'])}<span>{escape(about)}</span></summary>"
    return f"<details id={anchor(model['name'])}{' open' if is_open else ''}>{summary}{''.join(parts)}</details>"


def _flips(model: Mapping[str, Any], flips: Flips, most: int) -> tuple[str, int]:
    """Render the pictures whose answer changes; return how many as well."""
    parts, used = [], 0
    for form, told in model["measured"].items():
        found = flips.get((model["name"], form), ())[: max(0, most - used)]
        used += len(found)
        if not told["changed"]:
            continue
        detector = model["kind"] == "detector"
        what = "scenes with other boxes" if detector else "answers that change"
        shown = f", {len(found)} shown" if len(found) < told["changed"] else ""
        text = f"{told['changed']} of {told['of']} pictures{shown}."
        if detector:
            text += " Grey: both find it."
        key = '<p><span class="key only-fp32">Blue: only FP32</span>, <span class="key only-form">orange: only '
        key = f"{key}{escape(form)}</span></p>" if detector else ""
        cards = "".join(_card(one, form, detector=detector) for one in found)
        grid = "cards scenes" if detector else "cards"
        title = f"FP32 and {form}: {what}"
        parts.append(f'<h3>{escape(title)}</h3><p>{escape(text)}</p>{key}<div class="{grid}">{cards}</div>')
    return "".join(parts), used


def _card(one: Flip, form: str, *, detector: bool) -> str:
    data = base64.b64encode(encode_image(one.image_rgb, ".jpg", 82)).decode()
    only = "only " if detector else ""
    caption = (
        f"{only}FP32 <b>{escape(one.fp32)}</b><br>{only}{escape(form)} <b>{escape(one.other)}</b><br>"
        f"{'' if detector else 'true: '}{escape(one.truth)}<br><small>{escape(one.name)}</small>"
    )
    image = f'<img alt="{escape(one.name, quote=True)}" src="data:image/jpeg;base64,{data}">'
    return f"<figure>{image}<figcaption>{caption}</figcaption></figure>"
