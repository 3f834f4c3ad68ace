"""Synthetic pictures with masks: each mask is its picture's, and shows the object."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest

from edge.imaging.image import read_image
from trainer.data.masks import load_masked, read_masked
from trainer.synthetic.items import catalogue
from trainer.synthetic.write_masked import write_masked

ITEMS = catalogue()[::18]


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_masked(tmp_path_factory.mktemp("masked"), 3, 2, 2, 1, items=ITEMS, progress=False)


def test_every_mask_is_usable(written: Path) -> None:
    pictures = load_masked(read_masked(written))
    assert pictures.skipped == []
    assert len(pictures.masks) >= len(ITEMS) * 3 + 2
    assert 0.2 < np.mean([(mask >= 128).mean() for mask in pictures.masks]) < 0.9


def test_mask_on_white_is_what_is_not_white(written: Path) -> None:
    on_white = [sample for sample in read_masked(written) if "looks" in sample.path.parts]
    pictures = load_masked(on_white)
    for image, mask in zip(pictures.images, pictures.masks, strict=True):
        coloured = image.min(axis=2) < 250
        assert (coloured & (mask >= 128)).sum() / (coloured | (mask >= 128)).sum() > 0.9


def test_same_seed_gives_the_same_files(written: Path, tmp_path: Path) -> None:
    again = write_masked(tmp_path, 3, 2, 2, 1, items=ITEMS, progress=False)
    assert again.read_text() == written.read_text()
    row = next(iter(csv.DictReader(written.read_text().splitlines())))
    for name in (row["path"], row["mask"]):
        assert (tmp_path / name).read_bytes() == (written.parent / name).read_bytes()
    assert read_image(tmp_path / row["path"]).shape[:2] == read_image(tmp_path / row["mask"]).shape[:2]
