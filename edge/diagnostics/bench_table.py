"""What `edge bench` prints: the report of a measurement or of a comparison as a table."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping

from edge.diagnostics.bench_compare import CompareReport, RatioRow
from edge.diagnostics.bench_report import BenchReport

_MOST_DIFFERENCES = 5  # printed
_WAITED = 0.05  # share of time; a thread that nothing holds up waits less


def format_report(report: BenchReport) -> str:
    """Return the table of one device."""
    lines = [*_stream(report), *_device("bundle", report), ""]
    lines.append(f"{'stage':12} {'frames':>7} {'p50 ms':>9} {'p95 ms':>9} {'share':>7}")
    lines += [f"{r.stage:12} {r.frames:7} {r.p50_ms:9.3f} {r.p95_ms:9.3f} {r.share:7.1%}" for r in report.rows]
    return "\n".join([*lines, "", *_summary(report)])


def format_comparison(report: CompareReport) -> str:
    """Return the table of several devices, which are called A, B and so on."""
    reports = [report.first, *(other.report for other in report.others)]
    names = [chr(ord("A") + number) for number in range(len(reports))]
    changes = ["", *(f"{other.change}: " for other in report.others)]
    lines = [*_stream(report.first)]
    for name, change, one in zip(names, changes, reports, strict=True):
        lines += _device(f"{name}: {change}bundle", one)
    lines += ["", f"in turn, {report.blocks} blocks of {report.block_frames} frames; below 1, it is faster than A"]
    ratios = [{row.stage: row for row in other.ratios} for other in report.others]
    p50_ms = [{row.stage: row.p50_ms for row in one.rows} for one in reports]
    head = [f"{f'{name} p50 ms':>9} {f'{name} / A':>7} {'25 to 75 %':>14}" for name in names[1:]]
    lines.append(f"{'stage':12} {'A p50 ms':>9} {' '.join(head)}")
    for stage in dict.fromkeys(stage for rows in ratios for stage in rows):
        cells = [
            f"{of_other[stage]:9.3f} {_ratio(rows[stage])}" if stage in rows else " " * 32
            for of_other, rows in zip(p50_ms[1:], ratios, strict=True)
        ]
        lines.append(f"{stage:12} {p50_ms[0][stage]:9.3f} {' '.join(cells)}".rstrip())
    for name, one in zip(names, reports, strict=True):
        lines += ["", *(f"{name}: {line}" for line in _summary(one))]
    lines.append("")
    for name, other in zip(names[1:], report.others, strict=True):
        alike = f"{other.agreement.same} of {other.agreement.same + other.agreement.different} objects are the same"
        alone = f"tracks only in A: {other.agreement.only_first}, only in {name}: {other.agreement.only_other}"
        lines.append(f"{name} and A: {alike}; {alone}")
        lines += [f"  A: {a}; {name}: {b}" for a, b in other.agreement.differences[:_MOST_DIFFERENCES]]
    return "\n".join(lines)


def _ratio(row: RatioRow) -> str:
    if row.ratio is None:
        return f"{'':7} {'too few blocks':>14}"
    return f"{row.ratio:7.3f} {f'{row.p25:.3f} to {row.p75:.3f}':>14}"


def _stream(report: BenchReport) -> Iterator[str]:
    pace = "" if report.stream_fps is None else f", {report.stream_fps:g} frames/s, {report.stream_s:g} s"
    yield f"{report.source}: {report.frames} frames of {report.width}x{report.height}{pace}"
    if report.frames_skipped:
        yield f"not recognised: {_counted(report.frames_skipped)}"


def _device(word: str, report: BenchReport) -> Iterator[str]:
    engines = Counter(report.engines.values())
    names = list(engines) if len(engines) == 1 else [f"{name} ({count})" for name, count in engines.items()]
    threads = f"{report.threads} thread{'s' if report.threads > 1 else ''}"
    yield f"{word} {report.bundle}, gallery {report.gallery}, {', '.join(names) or 'no engine'}, {threads}"


def _summary(report: BenchReport) -> Iterator[str]:
    ratio = "" if report.process_per_engines is None else f", {report.process_per_engines:.2f} x the engines alone"
    yield f"detector to decision: {report.decision_frames_per_s} frames/s{ratio}"
    pace = "" if report.real_time_factor is None else f", {report.real_time_factor:g} x real time"
    yield f"from decoding to outbox: {report.frames_per_s} frames/s{pace}, {report.cpu_ms} ms of processor time a frame"
    unaccounted = f"{report.unaccounted_share:.1%} in no stage"
    yield f"outside decoding and engines: {report.overhead_share:.1%} of frame time, {unaccounted}"
    if report.waited_share > _WAITED:
        waited = f"its thread waited {report.waited_share:.0%} of the time from detector to decision"
        yield f"{waited}: for a GPU or other engine threads, or because other programs ran"
    if report.cameras is not None:
        limit = (
            "its recognition thread" if report.cameras_limit == "recognition thread" else f"its {report.cores} cores"
        )
        yield f"the device can carry {report.cameras:g} such cameras, limited by {limit}"
    rate = "" if report.looks_per_s is None else f", {report.looks_per_s:g} for each second of the stream"
    refused = f"; refused: {_counted(report.looks_refused)}" if report.looks_refused else ""
    yield f"{report.looks} looks{rate}{refused}"
    yield f"{report.tracks} objects; events: {_counted(report.events) or 'none'}"
    models = "" if report.engines_mib is None else f", {report.engines_mib} MiB of it models"
    yield f"memory {report.resident_mib} MiB{models}; warm-up: first frame {report.first_frame_ms:.1f} ms"


def _counted(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{count} {name}" for name, count in sorted(counts.items()))
