"""The bundle manifest."""

import copy
import json
import re
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge.errors import BundleError
from edge.manifest.embedder import Head
from edge.manifest.manifest import parse_manifest
from edge.manifest.model import Preprocess
from edge.manifest.space_id import embedding_space_id

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
    "probes": [{"path": "probes/0.png", "category": "carton", "item_id": "c1", "embedding_i8": [127, -3] * 48}],
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
    raw["classifier"]["output_names"] = ["out", "descriptor"]
    raw["probes"][0]["embedding_i8"] = [127] * (96 + dim)
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


def test_form_of_a_newer_version_is_ignored():
    raw = good()
    raw["classifier"]["files"] = {"fp8": "cls8.onnx", "fp32": "cls.onnx"}
    raw["classifier"]["ship"] = "fp8"
    raw["files"].append({"path": "cls8.onnx", "size": 3, "sha256": "c" * 64})
    raw["runtimes"] = ["fp32", "fp8"]
    manifest = parse(raw)
    assert (manifest.classifier.files, manifest.classifier.ship) == ({"fp32": "cls.onnx"}, "fp32")
    assert manifest.runtimes == ["fp32"]


def test_shipped_form_stays_when_another_is_unknown():
    raw = good()
    raw["classifier"] |= {"files": {"fp8": "cls.onnx", "ort-u8": "emb.onnx", "fp32": "det.onnx"}, "ship": "ort-u8"}
    assert parse(raw).classifier.ship == "ort-u8"


def test_model_with_unknown_forms_only_is_rejected():
    raw = good()
    raw["classifier"] |= {"files": {"fp8": "cls.onnx"}, "ship": "fp8"}
    assert "classifier.files.fp8" in error_of(raw)


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


HOSTILE_PATHS = {
    "./det.onnx": "has an empty part or one that starts with a dot",
    "a//det.onnx": "has an empty part",
    "a/./det.onnx": "starts with a dot",
    ".det.onnx": "starts with a dot",
    ".cache/det.onnx": "starts with a dot",
    "/det.onnx": "leaves the bundle folder",
    "a/../det.onnx": "leaves the bundle folder",
    "det.onnx/": "has an empty part",
    "bundle.json": "is reserved for the manifest",
    "BUNDLE.json": "is reserved for the manifest",
    "det.onnx.partial": "has suffix '.partial'",
    "a\nb.onnx": "use a character that every file system takes",
    "a\0.onnx": "use a character that every file system takes",
    "a\x1b[2J.onnx": "use a character that every file system takes",
    "a?.onnx": "use a character that every file system takes",
    "con:x.onnx": "use a character that every file system takes",
    "a /det.onnx": "ends in a dot or a blank",
    "a./det.onnx": "ends in a dot or a blank",
    "cafe\u0301.onnx": "is not in Unicode normal form C",
    "x" * 300 + ".onnx": "is too long",
    "a/" * 9 + "det.onnx": "is too long",
    "det.ONNX": "has suffix '.ONNX'",
}


@pytest.mark.parametrize("path", HOSTILE_PATHS)
def test_path_with_another_spelling_or_use_is_rejected(path):
    raw = good()
    raw["files"].append({"path": path, "size": 1, "sha256": "c" * 64})
    message = error_of(raw)
    assert message.startswith("slots/a/bundle.json: files.4.path: Value error, path '")
    assert HOSTILE_PATHS[path] in message
    assert message.isprintable()


@pytest.mark.parametrize(
    "path", ["models/caf\u00e9 (1).onnx", "a/b/c/d.bin", "x-1_2.onnx", "果汁/模型.json", "bundle.json.png"]
)
def test_ordinary_path_is_accepted(path):
    raw = good()
    raw["files"].append({"path": path, "size": 1, "sha256": "c" * 64})
    assert parse(raw).files[-1].path == path


@pytest.mark.parametrize(
    ("paths", "message"),
    [
        (["det.onnx"], "'det.onnx' and 'det.onnx' are one file"),
        (["DET.onnx"], "'det.onnx' and 'DET.onnx' are one file"),
        (["stra\u00dfe.onnx", "STRASSE.onnx"], "are one file on some file systems"),
        (["\u212b.onnx"], "is not in Unicode normal form C"),
        (["det.onnx/x.bin"], "'det.onnx' is a file, and 'det.onnx/x.bin' needs a folder of that name"),
        (["Det.onnx/x/y.bin"], "'det.onnx' is a file, and 'Det.onnx/x/y.bin' needs a folder of that name"),
        (["probes/0.png/1.png"], "'probes/0.png' is a file"),
    ],
)
def test_paths_that_share_a_file_are_rejected(paths, message):
    raw = good()
    raw["files"] += [{"path": path, "size": 1, "sha256": "c" * 64} for path in paths]
    assert message in error_of(raw)


@pytest.mark.parametrize(
    ("place", "value"),
    [
        (("detector", "strides"), [0]),
        (("detector", "strides"), []),
        (("detector", "strides"), [4096]),
        (("detector", "strides"), [8] * 1000),
        (("detector", "labels"), []),
        (("detector", "labels"), ["x"] * 100_000),
        (("detector", "labels"), ["a\0"]),
        (("detector", "iou_threshold"), -1),
        (("detector", "max_batch"), 10**9),
        (("detector", "preprocess"), {"width": 10**9, "height": 96}),
        (("detector", "preprocess"), {"width": 8192, "height": 8192}),
        (("detector", "preprocess"), {**PREPROCESS, "fill": 300}),
        (("detector", "preprocess"), {**PREPROCESS, "std": [0, 1, 1]}),
        (("detector", "preprocess"), {**PREPROCESS, "crop_margin": -0.5}),
        (("detector", "preprocess"), {**PREPROCESS, "interpolation": "cubic"}),
        (("detector", "output_names"), ["a", "b"]),
        (("detector", "output_names"), []),
        (("detector", "input_name"), ""),
        (("classifier", "labels"), []),
        (("classifier", "temperature"), 1e-300),
        (("classifier", "threshold"), 1e300),
        (("classifier", "descriptor_dim"), 10**9),
        (("embedders", 0, "heads"), []),
        (("embedders", 0, "heads"), [{"name": "class", "dim": 0}]),
        (("embedders", 0, "heads"), [{"name": "class", "dim": -64}]),
        (("embedders", 0, "heads"), [{"name": "class", "dim": 10**9}]),
        (("embedders", 0, "heads"), [{"name": "class", "dim": 16384}, {"name": "local", "dim": 1}]),
        (("embedders", 0, "categories"), [""]),
        (("embedders", 0, "open_set"), {"carton": {"threshold": 1e300}}),
        (("embedders", 0, "open_set"), {str(i): {} for i in range(20_000)}),
        (("probes", 0, "embedding_i8"), [127]),
        (("probes", 0, "embedding_i8"), [0] * 96),
        (("probes", 0, "embedding_i8"), [300] * 96),
        (("probes", 0, "category"), "tyre"),
        (("created_at",), "yesterday"),
        (("created_at",), "2026-02-30T00:00:00Z"),
        (("created_at",), "2026-01-01T00:00:00"),
        (("bundle_id",), ".."),
        (("sequence",), 2**63),
        (("files",), []),
    ],
)
def test_value_that_no_device_can_serve_is_rejected(place, value):
    raw = good()
    parent = raw
    for key in place[:-1]:
        parent = parent[key]
    parent[place[-1]] = value
    assert len(error_of(raw)) < 1000


FINDER = {**MODEL, "output_names": ["features"], "channels": 8, "guide": 0, "conversion": "conv.onnx"}


@pytest.mark.parametrize(
    "shape",
    [{"stride": 0}, {"kernel": 1000}, {"query_px": []}, {"query_px": [32] * 99}, {"levels": [2]}, {"stride": 200}],
)
def test_finder_of_an_impossible_shape_is_rejected(shape):
    raw = good()
    raw["files"] += [{"path": name, "size": 1, "sha256": "d" * 64} for name in ("fin.onnx", "conv.onnx")]
    raw["finder"] = {**FINDER, "files": {"fp32": "fin.onnx"}, "shape": {}}
    assert parse(raw).finder is not None
    raw["finder"]["shape"] = shape
    assert "finder" in error_of(raw)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[" * 100_000 + "]" * 100_000, "found JSON 100000 levels deep"),
        ('{"a":' * 100_000, "found JSON 100000 levels deep"),
        (json.dumps(GOOD)[:-1] + ',"schema":1}', "found the key 'schema' twice"),
        (json.dumps(GOOD)[:-1] + ',"x":NaN}', "found the number NaN"),
        (json.dumps(GOOD)[:-1] + ',"x":1e999}', "found the number 1e999"),
        (json.dumps(GOOD)[:-1] + ',"x":' + "9" * 5000 + "}", "found a number of 5000 digits"),
        (json.dumps(GOOD)[:-1] + ',"x":"\\ud800"}', "found text that is not UTF-8"),
        (json.dumps(GOOD) + " " * (9 << 20), "bytes of JSON, expected 8388608 at most"),
        (b'{"schema":"\xff"}', "found text that is not UTF-8"),
    ],
)
def test_document_that_harms_the_reader_is_rejected(text, message):
    with pytest.raises(BundleError, match=r"^bundle\.json: \(top\): ") as caught:
        parse_manifest(text, "bundle.json")
    assert message in str(caught.value)


def test_shipped_bundle_is_accepted():
    assert parse_manifest((Path(__file__).parents[3] / "demo/bundle/bundle.json").read_bytes(), "demo").probes
