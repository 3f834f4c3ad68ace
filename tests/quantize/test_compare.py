"""Metrics, gates and the choice of the form that ships."""

from pathlib import Path

import numpy as np
import pytest

from edge.inference.stages import ClassifierOutput
from quantize.average_precision import ap50_95, average_precision, match
from quantize.build_network import Policy, choose_form
from quantize.compare import Vectors, compare_classifiers, compare_detectors, compare_embedders
from quantize.gates import LIMITS, Gate, check_gate, check_measurement
from quantize.latency import interleaved_ms
from quantize.pictures import Sample, Scene
from tests.fakes_engine import ScriptedEngine

LABELS = ("box", "can")


def outputs(predictions, descriptors=None):
    probabilities = np.where(np.eye(2)[predictions] > 0, 0.9, 0.1).astype(np.float32)
    return ClassifierOutput(
        probabilities, np.zeros((len(predictions), 0), np.float32) if descriptors is None else descriptors
    )


def gate_of(comparison, name):
    return next(gate for gate in comparison.gates if gate.name == name)


def samples(count, items=("red", "blue"), category="box"):
    return [Sample(Path(f"{i}.png"), f"{i}.png", "val", category, items[i % len(items)]) for i in range(count)]


def unit(rows):
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def test_average_precision_is_that_of_training():
    """The packages may not import each other, so the formula is there twice: both must stay one."""
    from trainer.metrics import Boxes, detection_map

    rng = np.random.default_rng(3)
    found, truths = [], []
    for count in (0, 1, 3, 7, 7):
        corners = rng.uniform(0, 80, (count, 2))
        truths.append(np.concatenate([corners, corners + rng.uniform(8, 30, (count, 2))], axis=1).astype(np.float32))
        moved = np.repeat(truths[-1], 2, axis=0) + rng.uniform(-6, 6, (2 * count, 4))
        stray = np.array([[1, 1, 9, 9]], float)
        boxes = np.concatenate([moved, stray]).astype(np.float32)
        found.append((boxes, rng.integers(1, 6, len(boxes)).astype(np.float32) / 6))  # many ties
    trained = detection_map([Boxes(*one) for one in found], truths)
    assert 0.1 < trained["map50_95"] < trained["map50"] < 1
    assert (average_precision(found, truths, 0.5), ap50_95(found, truths)) == pytest.approx(
        (trained["map50"], trained["map50_95"]), abs=1e-12
    )


def test_identical_classifiers_pass_every_gate():
    truth = [0, 1] * 100
    result = compare_classifiers(outputs(truth), outputs(truth), [LABELS[i] for i in truth], LABELS)
    assert {gate.verdict for gate in result.gates} == {"pass"}
    assert result.table["top1"] == (1.0, 1.0)


def test_class_that_int8_misses_fails_the_worst_class_gate():
    truth = np.array([0] * 900 + [1] * 100)
    int8 = truth.copy()
    int8[-10:] = 0
    result = compare_classifiers(outputs(truth), outputs(int8), [LABELS[i] for i in truth], LABELS)
    assert gate_of(result, "worst_class").value == pytest.approx(0.9)
    assert gate_of(result, "worst_class").verdict == "fail"


def test_crops_of_a_category_without_label_are_ignored():
    result = compare_classifiers(outputs([0, 1]), outputs([0, 1]), ["box", "lorry"], LABELS)
    assert result.images == 1


def test_rotated_int8_descriptors_fail_the_cosine_gate():
    truth = [0, 1] * 100
    straight = unit(np.tile([1.0, 0.0], (200, 1)))
    turned = unit(np.tile([1.0, 0.3], (200, 1)))
    names = [LABELS[i] for i in truth]
    same = compare_classifiers(outputs(truth, straight), outputs(truth, straight), names, LABELS)
    other = compare_classifiers(outputs(truth, straight), outputs(truth, turned), names, LABELS)
    assert gate_of(same, "cosine_mean").verdict == "pass"
    assert gate_of(other, "cosine_mean").value == pytest.approx(1 / np.hypot(1, 0.3))
    assert gate_of(other, "cosine_mean").verdict == "fail"


def test_gate_with_too_few_images_does_not_hold():
    gate = check_gate("top1", 1.0, 4)
    assert gate.verdict == "insufficient data"
    assert not gate.holds


def test_gate_within_its_error_holds_without_passing():
    gate = check_gate("top1", 0.996, 300, error=0.004)
    assert gate.verdict == "insufficient data"
    assert gate.holds


def test_embedders_are_compared_within_the_category_of_the_query():
    gallery = [*samples(2), *samples(1, ("yellow",), "can")]
    vectors = unit(np.array([[1, 0.0], [0, 1], [0.9, 0.1]]))
    queries = samples(60)
    rows = unit(np.stack([vectors[i % 2] + 0.05 for i in range(60)]))
    same = Vectors(rows, vectors)
    result = compare_embedders(same, same, queries, gallery)
    assert result.table["recall_at_1"] == (1.0, 1.0)
    assert {gate.verdict for gate in result.gates} == {"pass"}


def test_int8_queries_in_another_space_fail_against_the_fp32_gallery():
    gallery, queries = samples(2), samples(60)
    vectors = unit(np.array([[1, 0.0], [0, 1]]))
    rows = np.stack([vectors[i % 2] for i in range(60)])
    result = compare_embedders(Vectors(rows, vectors), Vectors(rows[:, ::-1], vectors[:, ::-1]), queries, gallery)
    assert gate_of(result, "recall_at_1").verdict == "pass"
    assert gate_of(result, "recall_at_1_fp32_gallery").verdict == "fail"
    assert gate_of(result, "cosine_mean").verdict == "fail"


BOX = np.array([[10, 10, 30, 30]], np.float32)


def scenes(count, boxes=BOX):
    return [Scene(Path(f"{i}.png"), f"{i}.png", "val", boxes) for i in range(count)]


def found(boxes=BOX, score=0.9):
    return boxes, np.full(len(boxes), score, np.float32)


def test_detectors_with_true_boxes_are_compared_by_ap_and_recall():
    missed = [found() if i % 10 else found(BOX[:0]) for i in range(100)]
    result = compare_detectors([found()] * 100, missed, scenes(100), 0.5)
    assert result.table["ap50"][0] == pytest.approx(1.0)
    assert result.table["recall"] == (1.0, pytest.approx(0.9))
    assert gate_of(result, "recall").verdict == "fail"
    assert gate_of(result, "ap50_95").verdict == "fail"


def test_detectors_without_true_boxes_are_compared_by_agreement():
    result = compare_detectors([found()] * 40, [found(BOX + 1)] * 40, scenes(40, BOX[:0]), 0.5)
    assert result.table["agreement"] == (1.0, 1.0)
    assert gate_of(result, "matched_iou").value == pytest.approx(361 / 439, abs=1e-3)
    assert gate_of(result, "matched_iou").verdict == "fail"


def test_true_box_is_matched_once():
    boxes = np.repeat(BOX, 2, axis=0)
    overlap, hit = match(boxes, np.array([0.5, 0.9], np.float32), BOX, 0.5)
    assert overlap.tolist() == [0.0, 1.0]
    assert hit.tolist() == [1.0]


def test_average_precision_with_one_higher_false_positive_is_a_half():
    predicted = [(np.concatenate([BOX + 100, BOX]), np.array([0.9, 0.8], np.float32))]
    assert average_precision(predicted, [BOX], 0.5) == pytest.approx(0.5)
    assert ap50_95([found()], [BOX]) == pytest.approx(1.0)
    assert average_precision([found(BOX[:0])], [BOX], 0.5) == 0.0


def latency(ratio):
    return check_measurement("latency", ratio, 100)


def test_int8_ships_when_gates_hold_and_it_is_faster():
    ship, why, failed, _ = choose_form("classifier", [check_gate("top1", 1.0, 1000), latency(0.5)], Policy())
    assert (ship, failed) == ("ort-u8", [])
    assert "2.00x" in why


def test_fp32_ships_with_a_reason_when_int8_is_not_faster():
    ship, why, failed, _ = choose_form("classifier", [check_gate("top1", 0.2, 1000), latency(0.95)], Policy())
    assert (ship, failed) == ("fp32", [])
    assert "1.05x" in why
    assert "expected at least 1.11x" in why


def test_failed_gate_prevents_packing_and_is_named():
    _, _, failed, _ = choose_form("classifier", [check_gate("top1", 0.5, 1000), latency(0.5)], Policy())
    assert len(failed) == 1
    assert failed[0].startswith("classifier.top1 0.5000 (at least 0.995")


def test_waived_gate_allows_packing_and_is_recorded():
    policy = Policy(waived=frozenset({"classifier.top1"}))
    ship, _, failed, waived = choose_form("classifier", [check_gate("top1", 0.5, 1000), latency(0.5)], policy)
    assert (ship, failed, waived) == ("ort-u8", [], ["classifier.top1"])


def test_fallback_ships_fp32_and_names_the_gate():
    ship, why, failed, _ = choose_form(
        "classifier", [check_gate("top1", 0.5, 1000), latency(0.5)], Policy(fallback_fp32=True)
    )
    assert (ship, failed) == ("fp32", [])
    assert "top1" in why


def test_every_limit_makes_a_gate_with_a_manifest_row():
    for name in LIMITS:
        gate = check_gate(name, 0.5, 100)
        assert isinstance(gate, Gate)
        assert gate.row()["limit"] == LIMITS[name].value


def test_latency_is_the_median_of_interleaved_runs():
    ticks = iter(np.cumsum([0, 1, 0, 4, 0, 3, 0, 4, 0, 2, 0, 9]).tolist())
    engines = [ScriptedEngine(lambda batch: [batch]), ScriptedEngine(lambda batch: [batch])]
    assert interleaved_ms(engines, np.zeros(1), runs=3, clock_s=lambda: next(ticks)) == [2000.0, 4000.0]
