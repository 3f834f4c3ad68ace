"""Cutting the gallery of a smaller embedder out of a stored one."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from edge.cli import main
from edge.errors import GalleryError
from edge.gallery.cut import cut_gallery, cut_vectors
from edge.gallery.generation import Gallery, read_gallery, write_gallery_index
from edge.gallery.store import read_category, read_silhouettes, read_thumbnail
from edge.gallery.writer import GalleryWriter
from edge.imaging.image import encode_image
from edge.manifest.embedder import EmbedderModel, Head
from edge.manifest.model import Preprocess
from edge.shipped.examples import shipped

HEADS = [Head(name="class", dim=8), Head(name="local", dim=6), Head(name="outline", dim=4)]
NOW = "2026-01-01T00:00:00Z"


def unit(rows):
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


@dataclass
class FakeEmbedder:
    """Vectors of pictures by a linear map for each head; a part of it has some of these maps."""

    heads: list[Head]
    space: str
    seed: int = 0
    share: float = 0.0

    @property
    def model(self):
        spec = Preprocess(width=32, height=32, mean=(0.5,) * 3, std=(0.5,) * 3)
        return EmbedderModel(
            files={"fp32": "a.onnx"}, input_name="image", output_names=["vector"], preprocess=spec, ship="fp32",
            why="", max_batch=8, categories=["tyre"], heads=self.heads, space_id=self.space * 64,
            classifier_share=self.share,
        )  # fmt: skip

    def embed_whole(self, pictures, _):
        small = np.stack([picture[::4, ::4].ravel()[:64] for picture in pictures]).astype(np.float32) - 127
        parts = []
        for head in self.heads:
            maps = np.random.default_rng([self.seed, len(head.name)]).normal(size=(64, 16)).astype(np.float32)
            weight = np.sqrt(self.share if head.name == "classifier" else 1 - self.share)
            parts.append(weight * unit((small @ maps)[:, : head.dim]))
        return unit(np.hstack(parts))


def pictures(count, seed=0):
    return list(np.random.default_rng(seed).integers(0, 256, (count, 32, 32, 3)).astype(np.uint8))


def gallery_of(folder: Path, embedder: FakeEmbedder, *, with_pictures=True) -> Gallery:
    with GalleryWriter(folder, "tyre", embedder.space * 64, list(embedder.heads)) as writer:
        for number in (3, 1, 2):  # not in the order of the ids
            seen = pictures(2, number)
            shown = encode_image(seen[0], ".png") if with_pictures else None
            writer.add(
                f"i{number}", f"Item {number}", embedder.embed_whole(seen, None), {"n": number}, shown, b"o" * 512
            )
        writer.delete("i1")
    return write_gallery_index(folder, NOW)


def cut(tmp_path, whole, part, **given):
    gallery = gallery_of(tmp_path / "whole", whole, **given)
    return cut_gallery(gallery, {"tyre": whole}, {"tyre": part}, tmp_path / "out")


def test_the_descriptor_of_the_classifier_keeps_its_share():
    heads = [*HEADS, Head(name="classifier", dim=3)]
    own, described = (
        unit(np.random.default_rng(0).normal(size=(5, 18))),
        unit(np.random.default_rng(1).normal(size=(5, 3))),
    )
    joint = np.hstack([np.sqrt(0.7) * own, np.sqrt(0.3) * described])
    kept = cut_vectors(joint, heads, [HEADS[0], heads[-1]], share=0.3)
    np.testing.assert_allclose((kept[:, -3:] ** 2).sum(axis=1), 0.3, atol=1e-6)
    np.testing.assert_allclose(kept[:, -3:], np.sqrt(0.3) * described, atol=1e-6)


@pytest.mark.parametrize("with_pictures", [True, False])
def test_cut_gallery_is_that_of_the_smaller_embedder(tmp_path, with_pictures):
    whole, part = FakeEmbedder(HEADS, "a"), FakeEmbedder(HEADS[::2], "b")
    gallery, (told,) = cut(tmp_path, whole, part, with_pictures=with_pictures)
    assert (told.items, told.numbers, told.before, gallery.created_at) == (2, 12, 18, NOW)
    items = read_category(gallery.path("tyre"), "b" * 64, 12, gallery.categories["tyre"])
    assert tuple(items.item_ids) == ("i3", "i2")
    stored = items.vectors_i8 * items.scales[:, None]
    expected = np.vstack([part.embed_whole(pictures(2, number), None) for number in (3, 2)])
    assert (unit(stored) * expected).sum(axis=1).min() > 0.999
    assert items.labels[0] == "Item 3"
    assert read_silhouettes(gallery.path("tyre"))["i2"].tobytes() == b"o" * 512
    assert (read_thumbnail(gallery.path("tyre"), "i3") is not None) == with_pictures


def test_an_embedder_of_another_training_is_refused(tmp_path):
    with pytest.raises(GalleryError, match="is no part of that of --whole: of 2 pictures"):
        cut(tmp_path, FakeEmbedder(HEADS, "a"), FakeEmbedder(HEADS[:1], "b", seed=1))
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("heads", "problem"),
    [
        ([HEADS[1], HEADS[0]], "are no part of class 8"),
        ([Head(name="class", dim=9)], "are no part of"),
        ([Head(name="sum", dim=8)], "'sum' cannot be cut"),
    ],
)
def test_heads_that_are_no_part_are_refused(tmp_path, heads, problem):
    with pytest.raises(GalleryError, match=problem):
        cut(tmp_path, FakeEmbedder(HEADS, "a"), FakeEmbedder(heads, "b"))


def test_a_gallery_of_another_space_is_refused(tmp_path):
    gallery = gallery_of(tmp_path / "whole", FakeEmbedder(HEADS, "c"))
    whole, part = {"tyre": FakeEmbedder(HEADS, "a")}, {"tyre": FakeEmbedder(HEADS[:1], "b")}
    with pytest.raises(GalleryError, match="found embedding space cccccccccccc, expected that of --whole"):
        cut_gallery(gallery, whole, part, tmp_path / "out")
    with pytest.raises(GalleryError, match="--bundle has no embedder of it"):
        cut_gallery(gallery, whole, {}, tmp_path / "out")


def test_the_command_copies_stores_of_the_same_embedder(tmp_path, capsys):
    demo = shipped("demo")
    command = [
        "gallery",
        "cut",
        str(demo / "gallery"),
        "--whole",
        str(demo / "bundle"),
        "--bundle",
        str(demo / "bundle"),
    ]
    assert main([*command, "-o", str(tmp_path / "out")]) == 0
    assert capsys.readouterr().out.startswith(f"{tmp_path / 'out'}: gallery ")
    before, after = (read_gallery(folder) for folder in (demo / "gallery", tmp_path / "out"))
    assert (before.generation, before.created_at) == (after.generation, after.created_at)
    assert main([*command, "-o", str(tmp_path / "out")]) == 1
    assert "already exists; choose a new --out folder" in capsys.readouterr().err
