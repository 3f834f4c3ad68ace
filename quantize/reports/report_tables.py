"""The tables of the report page."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import Any

from quantize.reports.fusion import ON_PURPOSE

Row = Mapping[str, Any]  # a model of report.json
_HEADLINES = ("recall_at_1", "top1", "ap50_95", "agreement", "mask_overlap", "cosine_mean")
SATURATES = (
    "this CPU has no 8-bit dot product, and INT8 was packed for CPUs that have one, so that its sums overflow here; "
    "pack with --target-cpu any"
)
_CLASSES = {"pass": "good", "fail": "bad", "insufficient data": "warn"}


def anchor(name: str) -> str:
    """Return the fragment that names a model on the page."""
    return "model-" + re.sub(r"[^A-Za-z0-9]+", "-", name)


def _measures(model: Row) -> dict[str, Row]:
    """Return what compares each form with FP32: measured for the report, else as packed."""
    packed = model["packed"]
    found = {"ort-u8": packed} if packed.get("metrics") else {}
    found |= {form: told for form, told in packed.get("forms", {}).items() if told.get("metrics")}
    return {**found, **model["measured"]}


def _values(form: str, metrics: Mapping[str, Row]) -> dict[str, tuple[float, float]]:
    """Return each metric of FP32 and of a form."""
    found = {}
    for name, row in metrics.items():
        other = next((row[key] for key in (form, "int8") if key in row), None)
        if other is not None and name != "latency_ms":
            found[name] = (row["fp32"], other)
    return found


def accuracy_table(model: Row) -> str:
    """Return each metric of FP32 beside that of each form; empty if nothing was compared."""
    measures = {form: _values(form, told["metrics"]) for form, told in _measures(model).items()}
    if not measures:
        return ""
    names = list(dict.fromkeys(name for values in measures.values() for name in values))
    by_category = [name for name in names if name.startswith("recall_at_1.")]
    shown = [name for name in names if name not in by_category or len(by_category) <= 12]
    images = ", ".join(f"{form}: {told.get('images', '?')} pictures" for form, told in _measures(model).items())
    rows = []
    for name in shown:
        fp32 = next(values[name][0] for values in measures.values() if name in values)
        cells = [f"{values[name][1]:.4f}" if name in values else "" for values in measures.values()]
        rows.append((name, [f"{fp32:.4f}", *cells]))
    return _table(["", "FP32", *measures], rows) + f"<p><small>{escape(images)}</small></p>"


def gate_table(model: Row) -> str:
    """Return the gates of each form, those that did not pass first."""
    parts = []
    for form, told in _measures(model).items():
        gates = told.get("gates", {})
        if not gates:
            continue
        open_ = [name for name, gate in gates.items() if gate["verdict"] != "pass"]
        ordered = sorted(gates, key=lambda name: (gates[name]["verdict"] == "pass", name))
        rows = [(name, _gate_cells(gates[name])) for name in ordered]
        text = "all gates pass" if not open_ else f"{len(open_)} of {len(gates)} gates do not pass: {', '.join(open_)}"
        table = _table(["", "value", "limit", "samples", "verdict"], rows, raw=True)
        parts.append(f"<details><summary>{escape(form)}: {escape(text)}</summary>{table}</details>")
    return "".join(parts)


def _gate_cells(gate: Row) -> list[str]:
    sense = "at least" if gate["at_least"] else "at most"
    verdict = f"<span class={_CLASSES.get(gate['verdict'], 'warn')}>{escape(gate['verdict'])}</span>"
    return [f"{gate['value']:.4f}", f"{sense} {gate['limit']:.4g}", str(gate["samples"]), verdict]


def latency_table(model: Row) -> str:
    """Return the time and memory of each engine and form, the fastest first."""
    timed = sorted((one for one in model["latency"] if one["ms"] is not None), key=lambda one: one["ms"])
    base = next((o["ms"] for o in timed if (o["engine"], o["form"]) == ("onnxruntime", "fp32")), None)
    slowest = max((one["ms"] for one in timed), default=1.0)
    rows = []
    for number, one in enumerate(timed):
        name = f"{one['engine']} {one['form']}"
        memory = model.get("memory_mib", {}).get(name)
        best = " class=best" if number == 0 else ""
        bar = f'<svg viewBox="0 0 100 8" preserveAspectRatio="none"><rect{best} width="{100 * one["ms"] / slowest:.1f}"'
        cells = [
            f"{one['ms']:.3f}",
            "" if base is None else f"{base / one['ms']:.2f}x",
            f'{bar} height="8"/></svg>',
            "" if memory is None else f"{memory:.1f}",
        ]
        rows.append((name, cells))
    table = _table(["", "ms", "speed, FP32 = 1", "", "MiB"], rows, raw=True)
    failed = [f"{one['engine']} {one['form']}: {one['problem']}" for one in model["latency"] if one["problem"]]
    return table + "".join(f"<p class=bad>{escape(line)}</p>" for line in failed)


def speed_of(model: Row) -> float | None:
    """Return how many times faster the fastest engine and form is than ONNX Runtime with FP32; None if unknown."""
    times = {(o["engine"], o["form"]): o["ms"] for o in model.get("latency", []) if o["ms"] is not None}
    base = times.get(("onnxruntime", "fp32"))
    return None if base is None else base / min(times.values())


def fusion_section(model: Row) -> str:
    """Return the number of convolutions in each precision, the reasons, and every convolution in folded tables."""
    kinds = ("INT8", "FP16", "FP32")
    rows = [
        (f"{audit['engine']} {audit['form']}", [str(audit["counts"].get(kind, 0)) for kind in kinds] + [_spent(audit)])
        for audit in model["fusion"]
    ]
    parts = [_table(["", *kinds, "ms in convolutions"], rows)]
    for audit in model["fusion"]:
        if audit["form"] == "fp32":
            continue
        reasons: dict[str, list[Row]] = defaultdict(list)
        for conv in audit["convolutions"]:
            if conv["why"]:
                reasons[conv["why"]].append(conv)
        told = "; ".join(f"{len(convs)} {why}" for why, convs in reasons.items()) or "every convolution runs in INT8"
        heads = ["convolution", "precision", "ms", "runs as", "why not INT8"]
        lines = "".join(_conv_row(conv) for conv in audit["convolutions"])
        top = "".join(f"<th>{head}</th>" for head in heads)
        table = f"<div class=wide><table><thead><tr>{top}</tr></thead><tbody>{lines}</tbody></table></div>"
        source = f"<p><small>By {escape(audit['source'])}</small></p>"
        name = escape(f"{audit['engine']} {audit['form']}: {told}")
        parts.append(f"<details><summary>{name}</summary>{source}{table}</details>")
    return "".join(parts)


def _conv_row(conv: Row) -> str:
    ms = "" if conv["ms"] is None else f"{conv['ms']:.3f}"
    grade = "good" if conv["precision"] == "INT8" else "" if conv["why"] == ON_PURPOSE else "warn"
    return (
        f"<tr><td class=text>{escape(conv['name'])}<small>{escape(conv['shape'])}</small></td>"
        f'<td class="{grade}">{conv["precision"]}</td><td>{ms}</td><td>{escape(conv["runs_as"])}</td>'
        f"<td class=text>{escape(conv['why'])}</td></tr>"
    )


def _spent(audit: Row) -> str:
    times = [conv["ms"] for conv in audit["convolutions"] if conv["ms"] is not None]
    return f"{sum(times):.3f}" if times else ""


def summary_table(models: Sequence[Row]) -> str:
    """Return one row for each model."""
    heads = ["", "ships", "measure", "FP32", "shipped form", "changed answers", "fastest here", "ms", "speed, FP32 = 1"]
    if any(model["chosen"] for model in models):
        heads.append("device runs")
    rows = []
    for model in models:
        name = f'<a href="#{anchor(model["name"])}">{escape(model["name"])}</a>'
        rows.append((name, _summary_cells(model, heads)))
    top = "".join(f"<th>{head}</th>" for head in heads)
    lines = "".join(f"<tr><th>{name}</th>{''.join(f'<td>{c}</td>' for c in cells)}</tr>" for name, cells in rows)
    return f"<div class=wide><table><thead><tr>{top}</tr></thead><tbody>{lines}</tbody></table></div>"


def _summary_cells(model: Row, heads: Sequence[str]) -> list[str]:
    measures = _measures(model)
    form = model["ship"] if model["ship"] in measures else next(iter(measures), "")
    values = _values(form, measures[form]["metrics"]) if form else {}
    head = next((name for name in _HEADLINES if name in values), "")
    numbers = [f"{value:.4f}" for value in values[head]] if head else ["", ""]
    measured = model["measured"].get(form)
    changed = f"{measured['changed']} of {measured['of']}" if measured else ""
    times = [one for one in model.get("latency", []) if one["ms"] is not None]
    best = min(times, key=lambda one: one["ms"]) if times else None
    fastest = [f"{best['engine']} {best['form']}", f"{best['ms']:.3f}"] if best else ["", ""]
    speed = speed_of(model)
    cells = [model["ship"], head, *numbers, changed, *fastest, "" if speed is None else f"{speed:.2f}x"]
    if "device runs" in heads:
        cells.append(f"{model['chosen']['engine']} {model['chosen']['form']}" if model["chosen"] else "")
    return [escape(cell) for cell in cells]


def needs_a_look(models: Iterable[Row]) -> list[tuple[str, str]]:
    """Return the models whose decision a person should know of, with the reason."""
    found = []
    for model in models:
        measures = _measures(model)
        gates = {form: told.get("gates", {}) for form, told in measures.items()}
        failed = [
            f"{form} {n}" for form, all_ in gates.items() for n, gate in all_.items() if gate["verdict"] == "fail"
        ]
        if model["ship"] == "fp32" and model["kind"] != "finder" and model["why"] != "requested":
            found.append((model["name"], f"ships FP32: {model['why']}"))
        elif failed:
            found.append((model["name"], f"gates fail: {', '.join(failed)}"))
        if failed and model["saturates_here"]:
            found[-1] = (model["name"], f"{found[-1][1]}; {SATURATES}")
        found += [
            (model["name"], f"{one['engine']} {one['form']} does not run here: {one['problem']}")
            for one in model.get("latency", [])
            if one["problem"]
        ]
    return found


def _table(heads: Sequence[str], rows: Sequence[tuple[str, Sequence[str]]], *, raw: bool = False) -> str:
    top = "".join(f"<th>{escape(head)}</th>" for head in heads)
    lines = "".join(
        f"<tr><th>{escape(name)}</th>{''.join(f'<td>{c if raw else escape(c)}</td>' for c in cells)}</tr>"
        for name, cells in rows
    )
    return f"<div class=wide><table><thead><tr>{top}</tr></thead><tbody>{lines}</tbody></table></div>"
