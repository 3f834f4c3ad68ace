"""Galleries through a bundle, with an embedder that returns the mean colour instead of a trained one."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from edge.build import load_models
from edge.config.schema import EngineConfig
from edge.errors import TrainError
from edge.file_names import file_name
from edge.gallery.attributes import read_attributes
from edge.gallery.store import read_category, read_silhouettes, read_thumbnail
from edge.imaging.image import decode_image, encode_image
from edge.inference.postprocess import unit_rows
from edge.manifest.embedder import Head
from edge.manifest.model import Preprocess
from edge.manifest.space_id import embedding_space_id
from edge.recogniser import Recogniser
from edge.silhouettes.silhouette import cells
from tests.trainer.toy import write_crops
from trainer.catalogue.embed_gallery import embed_gallery
from trainer.data.dataset import read_samples

SPEC = Preprocess(width=16, height=16, crop_margin=0.1)
HEADS = [Head(name="class", dim=3)]


def mean_colour_onnx() -> bytes:
    nodes = [
        helper.make_node("Cast", ["image"], ["float"], to=TensorProto.FLOAT),
        helper.make_node("ReduceMean", ["float"], ["mean"], axes=[1, 2], keepdims=0),
        helper.make_node("LpNormalization", ["mean"], ["vector"], axis=1, p=2),
    ]
    graph = helper.make_graph(
        nodes,
        "mean colour",
        [helper.make_tensor_value_info("image", TensorProto.UINT8, ["n", 16, 16, 3])],
        [helper.make_tensor_value_info("vector", TensorProto.FLOAT, ["n", 3])],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model)
    return model.SerializeToString()


def write_bundle(folder: Path, categories: list[str], gathering: float = 0.0) -> str:
    folder.mkdir()
    data = mean_colour_onnx()
    digest = hashlib.sha256(data).hexdigest()
    (folder / "e.onnx").write_bytes(data)
    space = embedding_space_id(digest, SPEC, HEADS)
    embedder = {
        "files": {"fp32": "e.onnx"},
        "ship": "fp32",
        "input_name": "image",
        "output_names": ["vector"],
        "preprocess": SPEC.model_dump(),
        "categories": categories,
        "heads": [head.model_dump() for head in HEADS],
        "space_id": space,
        "gathering": gathering,
    }
    manifest = {
        "schema": 1,
        "bundle_id": "test",
        "sequence": 1,
        "created_at": "2026-01-01T00:00:00+00:00",
        "runtimes": ["fp32"],
        "files": [{"path": "e.onnx", "size": len(data), "sha256": digest}],
        "embedders": [embedder],
    }
    (folder / "bundle.json").write_text(json.dumps(manifest))
    return space


def test_gallery_holds_vectors_labels_and_thumbnails(tmp_path):
    samples = read_samples(write_crops(tmp_path / "data"))
    space = write_bundle(tmp_path / "bundle", ["red", "blue"])
    (tmp_path / "data" / "red-0-1.png").write_bytes(b"")
    done = embed_gallery(tmp_path / "bundle", samples, tmp_path / "gallery", per_item=3, thumbnail_px=20)
    assert (done.pictures, len(done.skipped), done.gallery.items) == (11, 1, 4)
    red = read_category(done.gallery.path("red"), space, 3)
    assert tuple(red.item_ids) == tuple(red.labels) == ("red-0", "red-1")
    vectors = red.vectors_i8 * red.scales[:, None]
    assert (vectors.argmax(axis=1) == 0).all()
    thumbnail = read_thumbnail(done.gallery.path("red"), "red-0")
    assert decode_image(thumbnail, "thumbnail").shape == (20, 16, 3)


@pytest.mark.parametrize(("few", "rows"), [(3, 3), (4, 3 * 6)])
def test_items_of_few_pictures_get_augmented_views(tmp_path, few, rows):
    samples = [s for s in read_samples(write_crops(tmp_path / "data")) if s.item == "red-0"][:3]
    space = write_bundle(tmp_path / "bundle", ["red", "blue"])
    done = embed_gallery(tmp_path / "bundle", samples, tmp_path / "gallery", few=few)
    assert done.pictures == 3
    assert len(read_category(done.gallery.path("red"), space, 3).row_item) == rows


def test_item_without_a_readable_picture_is_left_out_and_named(tmp_path, caplog):
    samples = [s for s in read_samples(write_crops(tmp_path / "data")) if s.category == "red"]
    space = write_bundle(tmp_path / "bundle", ["red", "blue"])
    torn = [sample for sample in samples if sample.item == "red-0"]
    for sample in torn:
        sample.path.write_bytes(sample.path.read_bytes()[:50])
    done = embed_gallery(tmp_path / "bundle", samples, tmp_path / "gallery")
    assert tuple(read_category(done.gallery.path("red"), space, 3).item_ids) == ("red-1",)
    assert len(done.skipped) == len(torn)
    assert "red/red-0: left out of the gallery: none of 6 pictures can be read" in caplog.text
    with pytest.raises(TrainError, match="red: no picture of any item can be read"):
        embed_gallery(tmp_path / "bundle", torn, tmp_path / "other")


def test_attributes_of_an_index_reach_the_device(tmp_path):
    """Pictures that contradict each other say nothing; the device's answer carries what near items say."""
    index = write_crops(tmp_path / "data")
    rows = index.read_text().splitlines()
    told = [f"{row},{'dark' if '-0-' in row else 'pale'},{number % 2}" for number, row in enumerate(rows[1:])]
    index.write_text("\n".join([f"{rows[0]},attribute:tone,attribute:odd", *told]) + "\n")
    samples = read_samples(index)
    write_bundle(tmp_path / "bundle", ["red", "blue"])
    done = embed_gallery(tmp_path / "bundle", samples, tmp_path / "gallery")
    assert read_attributes(done.gallery.path("red")) == {"red-0": {"tone": "dark"}, "red-1": {"tone": "pale"}}
    (found,) = Recogniser.load(tmp_path / "bundle", tmp_path / "gallery").recognise(samples[0].path).objects
    assert [one.name for one in found.attributes] == ["tone"]
    without = embed_gallery(tmp_path / "bundle", read_samples(write_crops(tmp_path / "plain")), tmp_path / "other")
    assert not read_attributes(without.gallery.path("red"))


def test_gallery_does_not_depend_on_gathering(tmp_path):
    samples = read_samples(write_crops(tmp_path / "data"))
    generations = set()
    for gathering in (0.0, 0.5):
        write_bundle(tmp_path / f"bundle-{gathering}", ["red", "blue"], gathering)
        done = embed_gallery(tmp_path / f"bundle-{gathering}", samples, tmp_path / f"gallery-{gathering}")
        generations.add(done.gallery.generation)
    assert len(generations) == 1


@pytest.mark.parametrize("gathering", [0.0, 1.0])
def test_device_shrinks_items_to_their_centroid_by_gathering(tmp_path, gathering):
    samples = read_samples(write_crops(tmp_path / "data"))
    space = write_bundle(tmp_path / "bundle", ["red", "blue"], gathering)
    gallery = embed_gallery(tmp_path / "bundle", samples, tmp_path / "gallery").gallery
    red = read_category(gallery.path("red"), space, 3)
    pictures = unit_rows(red.vectors_i8[red.row_item == 0] * red.scales[red.row_item == 0, None])
    index = load_models(tmp_path / "bundle", tmp_path / "gallery", EngineConfig()).indexes["red"]
    scores = [hits[0].score for hits in index.search(pictures, 1)]
    assert (min(scores) > 0.9999) == (gathering == 0.0)
    if gathering:  # nothing but the mean of an item is left
        assert scores == pytest.approx(pictures @ unit_rows(pictures.mean(axis=0)[None])[0], abs=2e-3)


def test_same_pictures_give_the_same_generation(tmp_path):
    samples = read_samples(write_crops(tmp_path / "data"))
    write_bundle(tmp_path / "bundle", ["red", "blue"])
    names = [embed_gallery(tmp_path / "bundle", samples, tmp_path / name).gallery.generation for name in "ab"]
    assert names[0] == names[1]


def test_category_without_embedder_is_left_out_and_counted(tmp_path, caplog):
    samples = read_samples(write_crops(tmp_path / "data"))
    write_bundle(tmp_path / "bundle", ["red"])
    done = embed_gallery(tmp_path / "bundle", samples, tmp_path / "gallery")
    assert (list(done.gallery.categories), done.not_embedded) == (["red"], {"blue": 12})
    assert "left out 12 pictures of 1 categories that the bundle has no embedder for: blue (12)" in caplog.text
    blue = [sample for sample in samples if sample.category == "blue"]
    with pytest.raises(TrainError, match=r"has embedders for \['red'\], but none for \['blue'\]"):
        embed_gallery(tmp_path / "bundle", blue, tmp_path / "other")


def test_category_without_a_readable_picture_is_left_out(tmp_path):
    samples = read_samples(write_crops(tmp_path / "data"))
    write_bundle(tmp_path / "bundle", ["red", "blue"])
    for sample in samples:
        if sample.category == "blue":
            sample.path.write_bytes(b"")
    done = embed_gallery(tmp_path / "bundle", samples, tmp_path / "gallery")
    assert (list(done.gallery.categories), len(done.skipped)) == (["red"], 12)
    assert [path.name for path in (tmp_path / "gallery").glob("*.sqlite")] == ["red.sqlite"]


def test_any_text_names_a_category_and_an_item(tmp_path):
    names = ["AM General", "果汁", "a/b", "..", " leading blank", "😀", "x" * 300, "Cola", "cola"]
    listed = [sample for sample in read_samples(write_crops(tmp_path / "data")) if sample.item == "red-0"]
    samples = [replace(sample, category=name, item=name, label="") for name in names for sample in listed[:1]]
    space = write_bundle(tmp_path / "bundle", names)
    done = embed_gallery(tmp_path / "bundle", samples, tmp_path / "gallery")
    assert set(done.gallery.categories) == set(names)
    assert {name: tuple(read_category(done.gallery.path(name), space, 3).item_ids) for name in names} == {
        name: (name if len(name) < 200 else file_name(name),) for name in names
    }


def test_vectors_are_those_of_the_device(tmp_path):
    samples = read_samples(write_crops(tmp_path / "data"))
    space = write_bundle(tmp_path / "bundle", ["red", "blue"])
    done = embed_gallery(tmp_path / "bundle", samples, tmp_path / "gallery")
    blue = read_category(done.gallery.path("blue"), space, 3)
    np.testing.assert_allclose(np.linalg.norm(blue.vectors_i8 * blue.scales[:, None], axis=1), 1.0, atol=0.02)
    assert len(blue.row_item) == 12


def test_items_of_a_negative_split_are_marked_negative(tmp_path):
    samples = [
        replace(s, split="never") if s.item == "red-1" else s for s in read_samples(write_crops(tmp_path / "data"))
    ]
    space = write_bundle(tmp_path / "bundle", ["red", "blue"])
    done = embed_gallery(tmp_path / "bundle", samples, tmp_path / "gallery", negatives=["never"])
    assert read_category(done.gallery.path("red"), space, 3).negative.tolist() == [False, True]


def add_localiser(bundle: Path) -> None:
    """Add a localiser that takes bright red or blue as the object: the toy's squares, not its grey ground."""
    (bundle / "l.onnx").write_bytes(data := brightest_onnx())
    tree = json.loads((bundle / "bundle.json").read_text())
    tree["files"].append({"path": "l.onnx", "size": len(data), "sha256": hashlib.sha256(data).hexdigest()})
    model = {"files": {"fp32": "l.onnx"}, "ship": "fp32", "input_name": "image", "output_names": ["mask"]}
    tree["localiser"] = model | {"preprocess": SPEC.model_dump(), "stride": 1}
    (bundle / "bundle.json").write_text(json.dumps(tree))


def brightest_onnx() -> bytes:
    nodes = [
        helper.make_node("Cast", ["image"], ["float"], to=TensorProto.FLOAT),
        helper.make_node("Transpose", ["float"], ["planes"], perm=[0, 3, 1, 2]),
        helper.make_node("ReduceMax", ["planes"], ["best"], axes=[1], keepdims=1),
        helper.make_node("Sub", ["best", "threshold"], ["mask"]),
    ]
    graph = helper.make_graph(
        nodes,
        "brightest",
        [helper.make_tensor_value_info("image", TensorProto.UINT8, ["n", 16, 16, 3])],
        [helper.make_tensor_value_info("mask", TensorProto.FLOAT, ["n", 1, 16, 16])],
        [helper.make_tensor("threshold", TensorProto.FLOAT, [], [190.0])],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model)
    return model.SerializeToString()


def test_bundle_with_localiser_stores_silhouettes(tmp_path):
    samples = read_samples(write_crops(tmp_path / "data"))
    write_bundle(tmp_path / "bundle", ["red", "blue"])
    plain = embed_gallery(tmp_path / "bundle", samples, tmp_path / "plain")
    assert read_silhouettes(plain.gallery.path("red")) == {}
    add_localiser(tmp_path / "bundle")
    (tmp_path / "data/red-0-0.png").write_bytes(encode_image(np.full((40, 32, 3), 100, np.uint8), ".png"))
    done = embed_gallery(tmp_path / "bundle", samples, tmp_path / "gallery")
    silhouettes = read_silhouettes(done.gallery.path("red"))
    assert {item: rows.shape for item, rows in silhouettes.items()} == {"red-0": (5, 512), "red-1": (6, 512)}
    grid = cells(silhouettes["red-1"][0])  # the square is 24 x 32 in 32 x 40
    assert not grid[:, :9].any()
    assert grid[32, 15:48].all()
    assert grid.mean() == pytest.approx(24 * 32 / 40**2, abs=0.06)
