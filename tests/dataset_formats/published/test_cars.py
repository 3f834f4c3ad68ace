"""Stanford Cars: its MATLAB files, read in another process, and rows of them that do not fit."""

from __future__ import annotations

import sys
from collections import Counter

import numpy as np
import pytest
import scipy.io

from dataset_formats.published import matlab_file
from dataset_formats.published.cars import read_cars
from dataset_formats.published.matlab_file import read_matlab
from edge.errors import DataError
from tests.dataset_formats.samples import cars_devkit, cars_merged, cars_table, class_names, folders, picture


def test_published_split_uses_the_merged_pictures(tmp_path):
    cars_merged(tmp_path)
    published = read_cars(tmp_path, published=True)
    assert Counter(sample.split for sample in published.samples) == {"train": 98, "test": 2}
    assert published.samples[0].box_px == (1, 2, 20, 30)
    assert (published.samples[0].category, published.samples[0].item) == ("car", "Make Model 1")
    assert Counter(sample.split for sample in read_cars(tmp_path).samples) == {"train": 50, "test": 50}


def test_devkit_folders_may_be_nested(tmp_path):
    listing = read_cars(cars_devkit(tmp_path))
    assert Counter(sample.split for sample in listing.samples) == {"train": 3, "test": 3}
    (tmp_path / "devkit/cars_test_annos_withlabels.mat").unlink()
    assert "cars_test_annos_withlabels.mat: not found" in read_cars(tmp_path).left_out[0]
    with pytest.raises(DataError, match=r"cars_annos\.mat: not found"):
        read_cars(tmp_path, published=True)
    (tmp_path / "devkit/cars_meta.mat").unlink()
    with pytest.raises(DataError, match=r"cars_meta\.mat: not found"):
        read_cars(tmp_path)


def test_cars_may_be_folders_of_classes(tmp_path):
    folders(tmp_path / "car_data/car_data", ["train/Audi A 2012", "test/Audi A 2012"], 1)
    listing = read_cars(tmp_path / "car_data")
    assert listing.layout == "cars"
    assert [(s.category, s.item, s.split) for s in listing.samples] == [
        ("car", "Audi A 2012", "test"),
        ("car", "Audi A 2012", "train"),
    ]


@pytest.mark.parametrize(
    ("row", "why"),
    [
        ((2, 3, 20, 30, 9, "car_ims/2.jpg", 0), "found class 9, expected 1 to 3"),
        ((2, 3, 20, 30, 0, "car_ims/2.jpg", 0), "found class 0, expected 1 to 3"),
        ((2, 3, 20, 30, 1.5, "car_ims/2.jpg", 0), "found class 1.5, expected 1 to 3"),
        ((20, 3, 2, 30, 2, "car_ims/2.jpg", 0), "found the box [20, 3, 2, 30]"),
        ((2, float("nan"), 20, 30, 2, "car_ims/2.jpg", 0), "found the box [2, nan, 20, 30]"),
        ((2, 3, 20, 30, 2, "car_ims/2.jpg", 7), "found 7 for test, expected 0 or 1"),
        ((2, 3, 20, 30, 2, "car_ims/9.jpg", 0), "9.jpg: not found"),
        ((2, 3, 20, 30, 2, "", 0), "annotation 2: names no picture"),
        ((2, 3, 20, 30, 2, [1, 2], 0), "annotation 2: names no picture"),
    ],
)
def test_row_that_does_not_fit_is_left_out(tmp_path, row, why):
    rows = [(2, 3, 20, 30, number, f"car_ims/{number}.jpg", 0) for number in (1, 2, 3)]
    for *_, name, _ in rows:
        picture(tmp_path / name)
    rows[1] = row
    tree = {"annotations": cars_table(rows, "relative_im_path", "test"), "class_names": class_names(3)}
    scipy.io.savemat(tmp_path / "cars_annos.mat", tree)
    listing = read_cars(tmp_path)
    assert [sample.path.name for sample in listing.samples] == ["1.jpg", "3.jpg"]
    assert len(listing.left_out) == 1
    assert why in listing.left_out[0]


def test_picture_that_two_rows_name_is_left_out(tmp_path):
    rows = [(2, 3, 20, 30, number, f"car_ims/{max(number, 2)}.jpg", 0) for number in (1, 2, 3)]
    picture(tmp_path / "car_ims/3.jpg")
    tree = {"annotations": cars_table(rows, "relative_im_path", "test"), "class_names": class_names(3)}
    scipy.io.savemat(tmp_path / "cars_annos.mat", tree)
    listing = read_cars(tmp_path)
    assert [sample.item for sample in listing.samples] == ["Make Model 3"]
    assert [line.rpartition(": ")[2] for line in listing.left_out] == [
        "2 rows name car_ims/2.jpg; keep the right one"
    ] * 2


def test_file_that_is_not_matlab_is_named(tmp_path):
    cars_devkit(tmp_path)
    whole = (tmp_path / "devkit/cars_meta.mat").read_bytes()
    for broken in (b"not a file of MATLAB" * 20, b"", whole[:200]):
        (tmp_path / "devkit/cars_meta.mat").write_bytes(broken)
        with pytest.raises(DataError, match=r"cars_meta\.mat: (not a MATLAB file|cannot read)"):
            read_cars(tmp_path)


def test_matlab_file_without_the_variables_is_named(tmp_path):
    cars_devkit(tmp_path)
    scipy.io.savemat(tmp_path / "devkit/cars_meta.mat", {"other": [1]})
    with pytest.raises(DataError, match=r"cars_meta\.mat has no class_names"):
        read_cars(tmp_path)


@pytest.mark.parametrize(
    ("program", "why"),
    [
        ("import os; os.kill(os.getpid(), 11)", "reading it ended with status -11"),
        ("import time; time.sleep(60)", "took more than 0.5 s"),
        ("print('no JSON')", "reading it ended with status 0"),
    ],
)
def test_reader_that_crashes_or_hangs_is_an_error(tmp_path, monkeypatch, program, why):
    script = tmp_path / "python"
    script.write_text(f"#!{sys.executable}\n{program}\n")
    script.chmod(0o755)
    monkeypatch.setattr(matlab_file.sys, "executable", str(script))
    monkeypatch.setattr(matlab_file, "TIMEOUT_S", 0.5)
    with pytest.raises(DataError, match=why):
        read_matlab(tmp_path / "a.mat", "x")


def test_matlab_file_that_needs_too_much_memory_is_an_error(tmp_path, monkeypatch):
    scipy.io.savemat(tmp_path / "a.mat", {"x": np.zeros(64 << 20, np.uint8)}, do_compression=True)
    assert (tmp_path / "a.mat").stat().st_size < 1 << 20
    monkeypatch.setattr(matlab_file, "MEMORY_MIB", 180)
    with pytest.raises(DataError, match="needs more than 180 MiB of memory"):
        read_matlab(tmp_path / "a.mat", "x")
