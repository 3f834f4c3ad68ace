"""The typed tree of a bundle."""

import copy
import json

import pytest

from edge.errors import BundleError
from edge.manifest import Head, Preprocess, embedding_space_id, parse_manifest

PREPROCESS = {"width": 96, "height": 96}
MODEL = {"input_name": "image", "output_names": ["out"], "preprocess": PREPROCESS, "ship": "fp32"}
SPACE = "5" * 64
GOOD = {
    "schema": 1,
    "bundle_id": "demo-1",
    "sequence": 1,
    "created_at": "2026-01-01T00:00:00Z",
    "runtimes": ["fp32"],
    "files": [{"path": f"{name}.onnx", "size": 3, "sha256": "a" * 64} for name in ("det", "cls", "emb")]
    + [{"path": "probes/0.png", "size": 1, "sha256": "b" * 64}],
    "detector": {
        **MODEL,
        "files": {"fp32": "det.onnx"},
        "decoder": "ltrb",
        "strides": [8],
        "labels": ["object"],
        "score_threshold": 0.4,
    },
    "classifier": {**MODEL, "files": {"fp32": "cls.onnx"}, "labels": ["carton", "tyre"]},
    "embedders": [
        {
            **MODEL,
            "files": {"fp32": "emb.onnx"},
            "categories": ["carton"],
            "heads": [{"name": "class", "dim": 64}, {"name": "local", "dim": 32}],
            "space_id": SPACE,
        }
    ],
    "probes": [{"path": "probes/0.png", "category": "carton", "item_id": "c1", "embedding_i8": [127, -3]}],
}


def good():
    return copy.deepcopy(GOOD)


def parse(raw):
    return parse_manifest(json.dumps(raw), "slots/a/bundle.json")


def error_of(raw):
    with pytest.raises(BundleError) as caught:
        parse(raw)
    return str(caught.value)


def test_a_good_manifest_is_read_and_its_embedder_found():
    manifest = parse(good())
    assert manifest.embedder_for("carton").dim == 96
    assert manifest.embedder_for("tyre") is None
    assert manifest.detector.keep_labels is None


def test_unknown_keys_are_ignored_everywhere():
    raw = good()
    raw["future"] = raw["detector"]["future"] = raw["files"][0]["future"] = {"a": 1}
    assert parse(raw) == parse(good())


@pytest.mark.parametrize(
    "path",
    ["/etc/x.onnx", "../x.onnx", "models/../../x.onnx", "models\\x.onnx", "C:/x.onnx"],
)
def test_a_path_outside_the_folder_is_refused(path):
    raw = good()
    raw["files"][0]["path"] = path
    assert error_of(raw).startswith("slots/a/bundle.json: files.0.path: ")
    assert "leaves the bundle folder" in error_of(raw)


@pytest.mark.parametrize("path", ["x.pkl", "x.py", "x", "", ".", "x.onnx.so"])
def test_a_file_of_a_kind_that_can_hold_code_is_refused(path):
    raw = good()
    raw["files"][0]["path"] = path
    assert "has suffix" in error_of(raw)


@pytest.mark.parametrize("digest", ["a" * 63, "A" * 64, "g" * 64, "", "sha256:" + "a" * 57])
def test_a_wrong_hash_field_is_refused(digest):
    raw = good()
    raw["files"][1]["sha256"] = digest
    assert "files.1.sha256" in error_of(raw)


@pytest.mark.parametrize("unlisted", ["det.onnx", "emb.onnx", "probes/0.png"])
def test_a_file_that_a_model_or_probe_names_must_be_listed(unlisted):
    raw = good()
    raw["files"] = [entry for entry in raw["files"] if entry["path"] != unlisted]
    assert f"files lists no ['{unlisted}']" in error_of(raw)


def described(dim=16, share=0.5, margin=0.0):
    raw = good()
    raw["classifier"]["descriptor_dim"] = 16
    raw["embedders"][0]["heads"].append({"name": "classifier", "dim": dim})
    raw["embedders"][0] |= {"classifier_share": share, "preprocess": PREPROCESS | {"crop_margin": margin}}
    return raw


def test_the_classifiers_part_of_a_vector_is_no_output_of_the_embedder():
    embedder = parse(described()).embedders[0]
    assert (embedder.dim, embedder.output_shapes(3)) == (96 + 16, [(3, 96)])


@pytest.mark.parametrize("changes", [{"dim": 8}, {"share": 0.0}])
def test_a_classifiers_part_that_no_classifier_gives_is_refused(changes):
    assert "found a classifier that describes by 16 numbers" in error_of(described(**changes))


def test_a_part_without_a_classifier_is_refused():
    assert "found a classifier that describes by 0 numbers" in error_of(described() | {"classifier": None})


def test_classifier_and_embedder_that_cut_crops_differently_share_no_vector():
    assert "found crop_margin 0.1, expected 0.0" in error_of(described(margin=0.1))


def test_a_category_served_twice_is_refused():
    raw = good()
    raw["embedders"].append(good()["embedders"][0])
    assert "categories ['carton'] are served by two embedders, expected one" in error_of(raw)


def test_the_shipped_form_must_be_among_the_files():
    raw = good()
    raw["classifier"]["ship"] = "ort-u8"
    expected = "slots/a/bundle.json: classifier: Value error, ship is 'ort-u8', expected one of ['fp32']"
    assert error_of(raw) == expected


@pytest.mark.parametrize(
    ("model", "key", "value"),
    [
        ("detector", "score_threshold", 0),
        ("detector", "score_threshold", 1),
        ("detector", "max_batch", 0),
        ("detector", "preprocess", {"width": 0, "height": 96}),
        ("classifier", "temperature", 0),
    ],
)
def test_a_number_that_no_model_can_run_with_is_refused(model, key, value):
    raw = good()
    raw[model][key] = value
    assert f"{model}.{key}" in error_of(raw)


def test_a_manifest_of_another_schema_is_refused():
    raw = good()
    raw["schema"] = 2
    assert error_of(raw).startswith("slots/a/bundle.json: schema: ")


@pytest.mark.parametrize("text", ["", "{", "[]", "null"])
def test_what_is_no_json_object_is_a_bundle_error(text):
    with pytest.raises(BundleError, match=r"bundle\.json: \(top\): "):
        parse_manifest(text, "bundle.json")


def test_a_manifest_survives_its_own_writing():
    manifest = parse(good())
    assert parse_manifest(manifest.model_dump_json(by_alias=True), "again") == manifest


def test_a_space_is_named_by_model_preprocessing_and_heads():
    heads = [Head(name="class", dim=64), Head(name="local", dim=64)]
    spec = Preprocess.model_validate(PREPROCESS)
    name = embedding_space_id("a" * 64, spec, heads)
    assert name == embedding_space_id("a" * 64, Preprocess(width=96, height=96), list(heads))
    assert name != embedding_space_id("b" * 64, spec, heads)
    assert name != embedding_space_id("a" * 64, spec.model_copy(update={"crop_margin": 0.1}), heads)
    assert name != embedding_space_id("a" * 64, spec, heads[::-1])


def test_outlines_count_only_beside_a_localiser():
    raw = good()
    raw["embedders"][0]["outline"] = {"carton": {"mode": "aligned", "weight": 0.2}}
    assert "outlines count in ['carton'], found no localiser" in error_of(raw)
    raw["localiser"] = {**MODEL, "files": {"fp32": "loc.onnx"}}
    assert "files lists no ['loc.onnx']" in error_of(raw)
    raw["files"].append({"path": "loc.onnx", "size": 3, "sha256": "a" * 64})
    manifest = parse(raw)
    assert manifest.localiser.output_shapes(3) == [(3, 1, 48, 48)]
    assert manifest.embedders[0].outline["carton"].counts


def test_a_weight_of_zero_needs_no_localiser():
    raw = good()
    raw["embedders"][0]["outline"] = {"carton": {"mode": "aligned", "weight": 0.0}}
    assert not parse(raw).embedders[0].outline["carton"].counts
