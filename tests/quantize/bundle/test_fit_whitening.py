"""Whitening, fitted on vectors whose nuisance is known."""

import json

import numpy as np
import pytest

from edge.errors import QuantizeError
from edge.gallery.item_vectors import shrink_to_centroid
from edge.inference.stages import load_stages
from edge.manifest.manifest import parse_manifest
from edge.manifest.space_id import embedding_space_id, whitened_space_id
from quantize.build_network import Policy, build_network
from quantize.bundle import pack
from quantize.bundle.fit_whitening import LabelledVectors, fit_map, measure_gain, shrinkage_for
from quantize.dataset import Data
from quantize.run_forms import embed_samples

DIM, ITEMS = 24, 30
FP32 = Policy(precision="fp32")


def unit(rows):
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def pictures(seed: int, each: int, *, nuisance: float = 2.5, plain: bool = False) -> LabelledVectors:
    """Vectors of items that differ in all directions; their pictures differ mostly in the first four."""
    centres = np.random.default_rng(0).normal(size=(ITEMS, DIM))
    rng = np.random.default_rng(seed)
    number = np.repeat(np.arange(ITEMS), each)
    noise = rng.normal(size=(len(number), DIM)) * np.r_[np.full(4, nuisance), np.full(DIM - 4, 0.9)]
    side = 3.0 if plain else 0.0  # all catalogue pictures are moved in one direction
    rows = unit(centres[number] + noise + side * np.eye(DIM)[5])
    return LabelledVectors(rows, np.array([f"item {n}" for n in number]), np.full(len(number), plain))


def joined(*parts: LabelledVectors) -> LabelledVectors:
    return LabelledVectors(
        *(np.concatenate([getattr(part, name) for part in parts]) for name in ("vectors", "items", "plain"))
    )


def recall(queries: LabelledVectors, gallery: LabelledVectors) -> float:
    nearest = (queries.vectors @ gallery.vectors.T).argmax(axis=1)
    return float((gallery.items[nearest] == queries.items).mean())


def test_map_makes_differences_within_items_alike():
    train = pictures(1, 12)
    mapped = train.vectors.astype(np.float64) @ fit_map(train).matrix.T
    within = np.concatenate([rows - rows.mean(axis=0) for rows in np.split(mapped, ITEMS)])
    before = np.concatenate([rows - rows.mean(axis=0) for rows in np.split(train.vectors, ITEMS)])
    assert within.std(axis=0).max() / within.std(axis=0).min() < 1.6
    assert before.std(axis=0).max() / before.std(axis=0).min() > 2.5


def test_map_is_the_inverse_root_of_the_shrunk_covariance():
    train = pictures(1, 12)
    within = np.concatenate([rows - rows.mean(axis=0) for rows in np.split(train.vectors.astype(np.float64), ITEMS)])
    covariance = within.T @ within / (len(within) - ITEMS)
    variance = np.trace(covariance) / DIM
    matrix = fit_map(train).matrix.astype(np.float64)
    shrunk = covariance + shrinkage_for(train.items) * variance * np.eye(DIM)
    np.testing.assert_allclose(matrix @ shrunk @ matrix, variance * np.eye(DIM), atol=1e-6)


def test_map_of_fewer_pictures_than_numbers_is_the_same_root():
    train = pictures(1, 12).select(np.arange(12 * ITEMS) < 16)  # of two items
    within = np.concatenate([rows - rows.mean(axis=0) for rows in np.split(train.vectors.astype(np.float64), [12])])
    covariance = within.T @ within / (len(within) - 2)
    variance = np.trace(covariance) / DIM
    values, axes = np.linalg.eigh(covariance + shrinkage_for(train.items) * variance * np.eye(DIM))
    np.testing.assert_allclose(fit_map(train).matrix, (axes * np.sqrt(variance / values)) @ axes.T, atol=1e-5)


def test_few_pictures_of_an_item_are_trusted_less():
    assert shrinkage_for(np.repeat(["a", "b"], 20)) == 1.0
    assert shrinkage_for(np.repeat(["a", "b"], 2)) == 10.0


def test_gain_is_measured_on_items_that_the_fit_did_not_see():
    train, held_out = pictures(1, 12), pictures(2, 6)
    gain = measure_gain(train, train, held_out, gathering=0.0)
    assert gain is not None
    assert gain.before == pytest.approx(recall(held_out, train))
    assert gain.change_95[0] > 0
    assert gain.pictures == 6 * ITEMS
    assert gain.after > gain.before + 0.05


def test_noise_that_is_alike_everywhere_gives_no_sure_gain():
    train, held_out = pictures(1, 12, nuisance=0.9), pictures(2, 6, nuisance=0.9)
    gain = measure_gain(train, train, held_out, gathering=0.5)
    assert gain is not None
    assert gain.change_95[0] <= 0


def test_each_side_loses_its_own_mean():
    catalogue, photos, held_out = pictures(3, 1, plain=True), pictures(1, 12), pictures(2, 6)
    mapped = fit_map(joined(catalogue, photos))
    one_mean = fit_map(photos)

    def found(whitening):
        sides = [
            LabelledVectors(whitening.map(one.vectors, plain=one.plain.tolist()), one.items, one.plain)
            for one in (held_out, catalogue)
        ]
        return recall(*sides)

    assert found(mapped) > found(one_mean) > recall(held_out, catalogue)


def test_items_that_the_gallery_lacks_say_nothing():
    train = pictures(1, 12)
    strangers = LabelledVectors(train.vectors, np.array([f"other {i}" for i in train.items]), train.plain)
    assert measure_gain(train, train, strangers, 0.5) is None


@pytest.fixture(scope="module")
def network(exported, data, tmp_path_factory):
    return build_network("embedder", exported["embedder"], tmp_path_factory.mktemp("work"), data, FP32, lambda x, _: x)


@pytest.fixture(scope="module")
def packed(network, data, tmp_path_factory):
    out = tmp_path_factory.mktemp("bundles") / "one"
    plain = Data(data.samples, [], gallery_splits=("train",), calibration_images=24)
    pack.pack(pack.PackOptions("one", 1, out, whiten="on"), [network], plain)
    return out


def test_packed_map_is_part_of_the_space(packed, network):
    manifest = parse_manifest((packed / "bundle.json").read_text(), "bundle.json")
    (model,) = manifest.embedders
    assert [head.name for head in model.heads] == ["whitened"]
    assert model.whitening is not None
    assert model.whitening.parts == network.spec.heads
    entry = next(one for one in manifest.files if one.path == model.whitening.file)
    spec = network.spec
    unmapped = embedding_space_id(network.provenance["fp32_sha256"], spec.preprocess, spec.heads)
    assert model.space_id == whitened_space_id(unmapped, entry.sha256)
    assert manifest.evaluation["embedder"]["whitening"]["kept"] is True


def test_packed_stage_gives_mapped_vectors(packed, data):
    manifest = parse_manifest((packed / "bundle.json").read_text(), "bundle.json")
    stage = load_stages(packed, manifest, "onnxruntime").embedders["box"]
    crops = [one for one in data.samples if one.split == "val" and one.category == "box"]
    vectors = embed_samples(stage, crops)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1.0, atol=1e-5)
    gallery = [one for one in data.samples if one.split == "train" and one.category == "box"]
    searched = shrink_to_centroid(embed_samples(stage, gallery), [one.item for one in gallery], 0.5)
    nearest = [gallery[i].item for i in (vectors @ searched.T).argmax(axis=1)]
    assert nearest == [one.item for one in crops]


def test_older_device_refuses_the_bundle(packed):
    raw = json.loads((packed / "bundle.json").read_text())
    del raw["embedders"][0]["whitening"]  # an older device ignores the key
    with pytest.raises(Exception, match="whitened"):
        parse_manifest(json.dumps(raw), "bundle.json")


def test_base_bundle_keeps_its_map(packed, exported, data, tmp_path):
    classifier = build_network("classifier", exported["classifier"], tmp_path, data, FP32, lambda x, _: x)
    out = tmp_path / "two"
    pack.pack(pack.PackOptions("two", 2, out, base=packed, with_probes=False), [classifier], data)
    old, new = (parse_manifest((folder / "bundle.json").read_text(), "bundle.json") for folder in (packed, out))
    file = old.embedders[0].whitening.file
    assert new.embedders[0].whitening == old.embedders[0].whitening
    assert (out / file).read_bytes() == (packed / file).read_bytes()


def test_too_few_photos_are_refused_or_left(network, data, tmp_path):
    few = Data([one for one in data.samples if one.split != "train"], [], gallery_splits=("catalogue",))
    with pytest.raises(QuantizeError, match="--whiten on: 10 photos beyond the first"):
        pack.pack(pack.PackOptions("few", 1, tmp_path / "few", whiten="on", with_probes=False), [network], few)
    pack.pack(pack.PackOptions("few", 1, tmp_path / "auto", whiten="auto", with_probes=False), [network], few)
    manifest = parse_manifest((tmp_path / "auto/bundle.json").read_text(), "bundle.json")
    assert manifest.embedders[0].whitening is None
    assert manifest.evaluation["embedder"]["whitening"]["kept"] is False
