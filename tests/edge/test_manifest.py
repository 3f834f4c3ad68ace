"""The bundle manifest."""

import copy
import json
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

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


def test_valid_manifest_is_parsed():
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
def test_path_outside_the_folder_is_rejected(path):
    raw = good()
    raw["files"][0]["path"] = path
    assert error_of(raw).startswith("slots/a/bundle.json: files.0.path: ")
    assert "leaves the bundle folder" in error_of(raw)


@pytest.mark.parametrize("path", ["x.pkl", "x.py", "x", "", ".", "x.onnx.so"])
def test_file_type_that_can_hold_code_is_rejected(path):
    raw = good()
    raw["files"][0]["path"] = path
    assert "has suffix" in error_of(raw)


@pytest.mark.parametrize("digest", ["a" * 63, "A" * 64, "g" * 64, "", "sha256:" + "a" * 57])
def test_malformed_hash_is_rejected(digest):
    raw = good()
    raw["files"][1]["sha256"] = digest
    assert "files.1.sha256" in error_of(raw)


@pytest.mark.parametrize("unlisted", ["det.onnx", "emb.onnx", "probes/0.png"])
def test_every_named_file_must_be_listed(unlisted):
    raw = good()
    raw["files"] = [entry for entry in raw["files"] if entry["path"] != unlisted]
    assert f"files does not list ['{unlisted}']" in error_of(raw)


def with_descriptor(dim=16, share=0.5, margin=0.0):
    raw = good()
    raw["classifier"]["descriptor_dim"] = 16
    raw["embedders"][0]["heads"].append({"name": "classifier", "dim": dim})
    raw["embedders"][0] |= {"classifier_share": share, "preprocess": PREPROCESS | {"crop_margin": margin}}
    return raw


def test_classifier_head_is_not_an_embedder_output():
    embedder = parse(with_descriptor()).embedders[0]
    assert (embedder.dim, embedder.output_shapes(3)) == (96 + 16, [(3, 96)])


@pytest.mark.parametrize("changes", [{"dim": 8}, {"share": 0.0}])
def test_classifier_head_must_match_the_descriptor(changes):
    assert "the classifier's descriptor has 16" in error_of(with_descriptor(**changes))


def test_classifier_head_needs_a_classifier():
    assert "the classifier's descriptor has 0" in error_of(with_descriptor() | {"classifier": None})


def test_classifier_head_needs_the_same_crop_margin():
    assert "found crop_margin 0.1, expected 0.0" in error_of(with_descriptor(margin=0.1))


def test_category_in_two_embedders_is_rejected():
    raw = good()
    raw["embedders"].append(good()["embedders"][0])
    assert "categories ['carton'] have two embedders" in error_of(raw)


def test_ship_target_must_have_a_file():
    raw = good()
    raw["classifier"]["ship"] = "ort-u8"
    expected = "slots/a/bundle.json: classifier: Value error, ship is 'ort-u8'; choose one of ['fp32']"
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
def test_out_of_range_numbers_are_rejected(model, key, value):
    raw = good()
    raw[model][key] = value
    assert f"{model}.{key}" in error_of(raw)


def test_other_schema_version_is_rejected():
    raw = good()
    raw["schema"] = 2
    expected = (
        r"slots/a/bundle.json: it has format 2, and finesight \S+ reads up to format 1; update finesight here, or"
    )
    assert re.match(expected, error_of(raw))


@pytest.mark.parametrize("text", ["", "{", "[]", "null"])
def test_text_that_is_not_a_json_object_is_a_bundle_error(text):
    with pytest.raises(BundleError, match=r"bundle\.json: \(top\): "):
        parse_manifest(text, "bundle.json")


def test_manifest_round_trips_through_json():
    manifest = parse(good())
    assert parse_manifest(manifest.model_dump_json(by_alias=True), "again") == manifest


def test_space_id_depends_on_model_preprocessing_and_heads():
    heads = [Head(name="class", dim=64), Head(name="local", dim=64)]
    spec = Preprocess.model_validate(PREPROCESS)
    name = embedding_space_id("a" * 64, spec, heads)
    assert name == embedding_space_id("a" * 64, Preprocess(width=96, height=96), list(heads))
    assert name != embedding_space_id("b" * 64, spec, heads)
    assert name != embedding_space_id("a" * 64, spec.model_copy(update={"crop_margin": 0.1}), heads)
    assert name != embedding_space_id("a" * 64, spec, heads[::-1])


def test_silhouettes_need_a_localiser():
    raw = good()
    raw["embedders"][0]["outline"] = {"carton": {"mode": "aligned", "weight": 0.2}}
    assert "silhouettes are used for ['carton'], but there is no localiser" in error_of(raw)
    raw["localiser"] = {**MODEL, "files": {"fp32": "loc.onnx"}}
    assert "files does not list ['loc.onnx']" in error_of(raw)
    raw["files"].append({"path": "loc.onnx", "size": 3, "sha256": "a" * 64})
    manifest = parse(raw)
    assert manifest.localiser.output_shapes(3) == [(3, 1, 48, 48)]
    assert manifest.embedders[0].outline["carton"].counts


def test_weight_of_zero_needs_no_localiser():
    raw = good()
    raw["embedders"][0]["outline"] = {"carton": {"mode": "aligned", "weight": 0.0}}
    assert not parse(raw).embedders[0].outline["carton"].counts


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=8)
    | st.sampled_from([SPACE, "fp32", "x.onnx"]),
    lambda values: (
        st.lists(values, max_size=4)
        | st.dictionaries(st.sampled_from(sorted(GOOD)) | st.text(max_size=6), values, max_size=4)
    ),
    max_leaves=20,
)


def places(tree, path=()):
    """The path of every value in a JSON tree."""
    yield path
    children = tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else ()
    for key, child in children:
        yield from places(child, (*path, key))


@settings(derandomize=True, max_examples=100, deadline=None)
@given(st.text(max_size=60) | JSON.map(json.dumps))
def test_any_text_gives_a_manifest_or_a_bundle_error(text):
    with pytest.raises(BundleError, match=r"^bundle\.json: "):
        parse_manifest(text, "bundle.json")


@settings(derandomize=True, max_examples=100, deadline=None)
@given(data=st.data())
def test_any_changed_value_gives_a_manifest_or_a_bundle_error(data):
    raw = {"tree": data.draw(st.sampled_from([good(), with_descriptor()]))}
    *path, last = data.draw(st.sampled_from([("tree", *place) for place in places(raw["tree"])]))
    parent = raw
    for key in path:
        parent = parent[key]
    parent[last] = data.draw(JSON)
    try:
        manifest = parse(raw["tree"])
    except BundleError:
        return
    assert parse_manifest(manifest.model_dump_json(by_alias=True), "again") == manifest
