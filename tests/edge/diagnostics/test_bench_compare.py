"""Ratios by block, which tracks are the same object, and the tables."""

from __future__ import annotations

from collections import Counter
from types import SimpleNamespace

from edge.diagnostics.bench_compare import Agreement, Compared, CompareReport, RatioRow, agree, count_pairs, ratio_of
from edge.diagnostics.bench_report import BenchReport, StageRow
from edge.diagnostics.bench_table import format_comparison, format_report

LEFT, RIGHT, FAR = (0.0, 0.0, 10.0, 10.0), (6.0, 0.0, 16.0, 10.0), (50.0, 50.0, 60.0, 60.0)


def test_ratio_is_the_median_of_the_blocks():
    a = [1.0, 1.0] * 5
    b = [1.0, 1.0, 2.0, 2.0, 3.0, 1.0, 9.0, 9.0, 1.0, 0.0]  # 1, 2, 2, 9 and a half
    assert ratio_of("detect", a, b, [0, 2, 4, 6, 8, 10]) == RatioRow("detect", 5, 2.0, 1.0, 2.0)


def test_blocks_in_which_one_did_nothing_have_no_ratio():
    for a, b in (([1.0, 0.0, 1.0, 1.0, 1.0], [1.0] * 5), ([1.0] * 5, [1.0, 0.0, 1.0, 1.0, 1.0])):
        assert ratio_of("embed", a, b, [0, 1, 2, 3, 4, 5]) == RatioRow("embed", 4, None, None, None)


def test_tracks_are_paired_by_their_boxes():
    pairs = Counter()
    count_pairs(pairs, [[(1, LEFT), (2, FAR)], [(1, LEFT)], []], [[(7, FAR), (8, LEFT)], [(8, RIGHT)], [(8, LEFT)]])
    assert pairs == {(1, 8): 1, (2, 7): 1}  # the second frame shows too little in common
    near = (1.0, 0.0, 11.0, 10.0)
    count_pairs(pairs, [[(3, near), (4, LEFT)]], [[(9, LEFT)]])  # two boxes on one: the nearer
    assert pairs == {(1, 8): 1, (2, 7): 1, (4, 9): 1}


def event(track_id, item):
    match = item and SimpleNamespace(item_id=item, label=f"label of {item}")
    return SimpleNamespace(
        track_id=track_id, decision=SimpleNamespace(match=match, reason=None if item else "unknown_item")
    )


def test_last_decisions_of_partners_are_compared():
    a = [event(1, "cola"), event(2, "lime"), event(3, None), event(1, "mint"), event(4, "tea")]
    b = [event(7, "lime"), event(8, "mint"), event(9, "tea")]
    pairs = Counter({(1, 8): 9, (2, 7): 5, (3, 9): 4, (1, 7): 2})
    expected = Agreement(2, 1, only_first=1, only_other=0, differences=[("unknown_item", "label of tea")])
    assert agree(a, b, pairs) == expected


def report(**changes):
    fields = dict.fromkeys(BenchReport.__dataclass_fields__, 1.0) | {
        "source": "demo.mp4", "clock": "stream", "width": 640, "height": 360, "frames": 300, "frames_skipped": {},
        "stream_s": 20.0, "stream_fps": 15.0, "bundle": "demo-1", "gallery": "g-1",
        "engines": {"detector": "onnxruntime fp32", "classifier": "onnxruntime ort-u8"}, "threads": 1,
        "rows": [StageRow("detect", 300, 2.0, 3.0, 0.6), StageRow("frame", 300, 4.0, 6.0, 1.0)],
        "process_per_engines": 1.4, "overhead_share": 0.2, "unaccounted_share": 0.01, "waited_share": 0.01,
        "looks": 104, "looks_refused": {"budget": 71}, "events": {"new": 31, "end": 28}, "tracks": 31, "cameras": 9.6,
        "cameras_limit": "recognition thread", "cores": 2, "looks_per_s": 5.2,
    }  # fmt: skip
    return BenchReport(**fields | changes)


def test_report_says_what_a_device_carries():
    text = format_report(report(frames_skipped={"obstructed": 3}))
    assert text.splitlines()[:3] == [
        "demo.mp4: 300 frames of 640x360, 15 frames/s, 20 s",
        "not recognised: 3 obstructed",
        "bundle demo-1, gallery g-1, onnxruntime fp32 (1), onnxruntime ort-u8 (1), 1 thread",
    ]
    assert "detect           300     2.000     3.000   60.0%" in text
    assert "detector to decision: 1.0 frames/s, 1.40 x the engines alone" in text
    assert "the device can carry 9.6 such cameras, limited by its recognition thread" in text
    assert "104 looks, 5.2 for each second of the stream; refused: 71 budget" in text


def test_report_says_when_the_machine_was_busy():
    assert "waited" not in format_report(report())
    assert "waited 30% of the time" in format_report(report(waited_share=0.3))


def test_report_of_a_single_picture_has_no_rates():
    text = format_report(report(stream_fps=None, real_time_factor=None, looks_per_s=None, cameras=None, engines={}))
    assert "demo.mp4: 300 frames of 640x360\n" in text
    assert "no engine" in text
    assert "such cameras" not in text
    assert "real time" not in text


def test_comparison_names_each_device():
    agreement = Agreement(30, 1, 0, 2, [("Pop cola", "Pop lime")])
    rows = [RatioRow("detect", 20, 0.5, 0.45, 0.61)], [RatioRow("detect", 3, None, None, None)]
    others = [Compared("precision=fp32", report(threads=2), row, agreement) for row in rows]
    lines = format_comparison(CompareReport(20, 15, report(), others)).splitlines()
    assert "C: precision=fp32: bundle demo-1, gallery g-1" in lines[3]
    assert lines[5:8] == [
        "in turn, 20 blocks of 15 frames; below 1, it is faster than A",
        "stage         A p50 ms  B p50 ms   B / A     25 to 75 %  C p50 ms   C / A     25 to 75 %",
        "detect           2.000     2.000   0.500 0.450 to 0.610     2.000         too few blocks",
    ]
    assert "B and A: 30 of 31 objects are the same; tracks only in A: 0, only in B: 2" in lines
    assert lines[-1] == "  A: Pop cola; C: Pop lime"
