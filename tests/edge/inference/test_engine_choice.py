"""The choice of an engine and form for each model, and the file that remembers it."""

from __future__ import annotations

import json
import os

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge.errors import EngineError
from edge.inference import engine_choice
from edge.inference.engine_choice import (
    EngineChoice,
    ModelChoice,
    Tried,
    choice_path,
    distrust,
    fastest,
    keep_since,
    models_of,
    read_choice,
    resolve,
    write_choice,
)
from tests.fakes_engine import detector_model
from tests.store_samples import make_bundle

FILES = {"fp32": "a.onnx", "ort-u8": "b.onnx", "tensorrt-s8": "c.onnx"}
MODEL = detector_model(files=FILES, ship="ort-u8")


def tried(backend, form, score_ms=1.0, problem=None, megabytes=1.0) -> Tried:
    ms = None if problem else score_ms
    return Tried(backend=backend, form=form, ms=ms, score_ms=ms, problem=problem, megabytes=megabytes)


ROWS = [
    tried("onnxruntime", "ort-u8", 3.0),
    tried("onnxruntime", "fp32", 2.0),
    tried("openvino", "ort-u8", 1.0),
    tried("openvino", "fp32", 4.0),
]


def choice(rows=ROWS, backend="openvino", form="ort-u8", **changes) -> EngineChoice:
    model = ModelChoice(backend=backend, form=form, since="2026-01-01T00:00:00Z", reason="fastest", tried=rows)
    fields = {"bundle_id": "one", "made_at": "2026-01-01T00:00:00Z", "backend": "auto", "machine": {"cpu": "x"}}
    return EngineChoice(schema=1, models={"detector": model}, **fields | changes)


def resolved(backend="auto", precision="shipped", chosen=None) -> list[tuple[str, str]]:
    return [(one.backend, one.form) for one in resolve("detector", MODEL, backend, precision, chosen)]


@pytest.mark.parametrize(
    ("rows", "best"),
    [
        ([tried("a", "fp32", 1.0), tried("b", "ort-u8", 1.5)], ("a", "fp32")),
        ([tried("a", "fp32", 1.0), tried("b", "ort-u8", 1.029)], ("b", "ort-u8")),  # the shipped form wins a tie
        ([tried("a", "fp32", 1.0, megabytes=9), tried("b", "fp16", 1.02, megabytes=2)], ("b", "fp16")),
        ([tried("openvino", "ort-u8", 1.0), tried("onnxruntime", "ort-u8", 1.01)], ("onnxruntime", "ort-u8")),
        ([tried("a", "fp32", 1.0, problem="wrong"), tried("b", "fp32", 9.0)], ("b", "fp32")),
    ],
)
def test_fastest_that_passed_wins_and_ties_go_to_the_shipped_form(rows, best):
    found = fastest(rows, "ort-u8")
    assert (found.backend, found.form) == best


def test_nothing_wins_where_nothing_passed():
    assert fastest([tried("a", "fp32", problem="wrong")], "fp32") is None


def test_without_a_choice_it_is_onnx_runtime_with_the_shipped_form():
    assert resolved() == [("onnxruntime", "ort-u8"), ("onnxruntime", "fp32")]


def test_auto_is_the_choice_and_the_default_comes_after_it():
    assert resolved(chosen=choice()) == [("openvino", "ort-u8"), ("onnxruntime", "ort-u8"), ("onnxruntime", "fp32")]


@pytest.mark.parametrize(
    ("backend", "precision", "expected"),
    [
        ("onnxruntime", "shipped", ("onnxruntime", "fp32")),  # its fastest form that passed
        ("onnxruntime", "int8", ("onnxruntime", "ort-u8")),
        ("openvino", "fp32", ("openvino", "fp32")),
        ("auto", "int8", ("openvino", "ort-u8")),
        ("auto", "fp32", ("onnxruntime", "fp32")),
    ],
)
def test_named_engine_or_precision_restricts_the_choice(backend, precision, expected):
    assert resolved(backend, precision, choice())[0] == expected


def test_named_engine_is_never_replaced_by_another():
    assert resolved("openvino", "fp32", choice()) == [("openvino", "fp32")]


def test_named_precision_that_failed_its_probes_is_an_error():
    rows = [tried("onnxruntime", "ort-u8", problem="3 of 8 probes failed"), tried("onnxruntime", "fp32")]
    with pytest.raises(EngineError, match=r"onnxruntime ort-u8: 3 of 8 probes failed; set engine\.backend: auto"):
        resolve("detector", MODEL, "auto", "int8", choice(rows, "onnxruntime", "fp32"))


def test_choice_of_a_form_that_the_bundle_lacks_is_ignored():
    gone = choice([*ROWS, tried("hailo", "hailo-hef", 0.1)], "hailo", "hailo-hef")
    assert resolved(chosen=gone)[0] == ("onnxruntime", "ort-u8")


def test_form_of_a_plug_in_can_be_chosen():
    model = detector_model(files=FILES | {"hailo-hef": "d.hef"}, ship="ort-u8")
    assert model.every_file["hailo-hef"] == "d.hef"
    found = choice([*ROWS, tried("hailo", "hailo-hef", 0.1)], "hailo", "hailo-hef")
    assert [one.form for one in resolve("detector", model, "auto", "shipped", found)][:2] == ["hailo-hef", "ort-u8"]


def test_choice_is_read_as_it_was_written(tmp_path):
    path = tmp_path / "engines" / "key.json"
    write_choice(path, choice())
    assert read_choice(path) == choice()


def test_only_the_newest_choices_are_kept(tmp_path):
    paths = [tmp_path / f"{number:02}.json" for number in range(engine_choice._MOST_FILES + 3)]
    for number, path in enumerate(paths):
        write_choice(path, choice())
        os.utime(path, (number, number))
    assert sorted(tmp_path.glob("*.json")) == paths[3:]


def test_new_choice_is_kept_when_the_clock_was_set_back(tmp_path):
    paths = [tmp_path / f"{number:02}.json" for number in range(engine_choice._MOST_FILES)]
    for number, path in enumerate(paths):
        write_choice(path, choice())
        os.utime(path, (2**33 + number, 2**33 + number))
    write_choice(tmp_path / "new.json", choice())
    assert sorted(tmp_path.glob("*.json")) == [*paths[1:], tmp_path / "new.json"]


def test_link_to_nothing_beside_the_choices_is_no_error(tmp_path):
    (tmp_path / "gone.json").symlink_to(tmp_path / "nowhere")
    write_choice(tmp_path / "one.json", choice())
    assert read_choice(tmp_path / "one.json") == choice()


def test_missing_choice_is_none_without_a_word(tmp_path, caplog):
    assert read_choice(tmp_path / "none.json") is None
    assert not caplog.records


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"", "Invalid JSON"),
        (b"{}", "Field required"),
        (b'{"schema": 2}', "it has format 2"),
        (b"[" * 100, "levels deep"),
        (b"\0" * 50, "JSON"),
        (b" " * (engine_choice._MAX_BYTES + 1), "bytes of JSON"),
    ],
)
def test_damaged_choice_is_logged_and_chosen_again(tmp_path, caplog, data, why):
    (tmp_path / "one.json").write_bytes(data)
    assert read_choice(tmp_path / "one.json") is None
    assert why in caplog.text
    assert "the engines are chosen again" in caplog.text


def test_folder_in_the_place_of_the_choice_is_set_aside(tmp_path):
    path = tmp_path / "one.json"
    path.mkdir()
    assert read_choice(path) is None
    write_choice(path, choice())
    assert read_choice(path) == choice()


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=12), inner, max_size=4),
    max_leaves=20,
)


@settings(max_examples=60, deadline=None)
@given(st.sampled_from(["bundle_id", "backend", "machine", "models", "pending", "schema"]), JSON)
def test_any_json_in_a_choice_is_read_or_refused(tmp_path_factory, key, value):
    path = tmp_path_factory.mktemp("engines") / "one.json"
    document = json.loads(choice().model_dump_json(by_alias=True)) | {key: value}
    path.write_text(json.dumps(document))
    found = read_choice(path)
    assert found is None or resolve("detector", MODEL, "auto", "shipped", found)


def test_date_of_what_stays_is_kept():
    older = choice(made_at="2025-01-01T00:00:00Z")
    newer = choice(made_at="2026-02-02T00:00:00Z")
    newer.models["detector"] = newer.models["detector"].model_copy(update={"since": "2026-02-02T00:00:00Z"})
    assert keep_since(newer, older).models["detector"].since == "2026-01-01T00:00:00Z"
    other = choice(ROWS, "onnxruntime", "fp32")
    assert keep_since(newer, other).models["detector"].since == "2026-02-02T00:00:00Z"


def test_choice_belongs_to_the_content_of_the_models(tmp_path):
    from edge.bundle.bundle import read_bundle

    one, same, other = (
        read_bundle(make_bundle(tmp_path / folder, name)).manifest
        for folder, name in (("one", "one"), ("same", "one"), ("other", "other"))
    )
    assert choice_path(tmp_path, one) == choice_path(tmp_path, same)
    assert choice_path(tmp_path, one) != choice_path(tmp_path, other)
    assert list(models_of(one)) == ["embedder tyre"]


def test_engines_that_end_the_device_are_distrusted_and_onnx_runtime_stays():
    found = distrust(choice(), {"detector": "ort-u8"}, "the device ended")
    model = found.models["detector"]
    assert (model.backend, model.form, model.reason) == ("onnxruntime", "fp32", "the device ended")
    assert {one.backend for one in model.tried if one.problem} == {"openvino"}
    assert distrust(found, {"detector": "ort-u8"}, "again") is None
