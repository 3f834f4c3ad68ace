"""Stanford Dogs, FGVC-Aircraft, Flowers-102 and Pets: the layouts one meets, and HDCL's class-disjoint splits."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import scipy.io

from dataset_formats.layouts import find_layout, read_listing
from dataset_formats.published.class_disjoint import SPLITS
from edge.errors import DataError
from tests.dataset_formats.samples import picture

BOX = "<object><bndbox><xmin>4</xmin><ymin>2</ymin><xmax>40</xmax><ymax>30</ymax></bndbox></object>"


def many(root: Path, names: list[str]) -> None:
    """The same picture under many names."""
    data = picture(root / names[0]).read_bytes()
    for name in names[1:]:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(data)


def texts(values: list[str]) -> np.ndarray:
    """A cell array of texts as MATLAB has it: (n, 1)."""
    table = np.empty((len(values), 1), object)
    table[:, 0] = values
    return table


def dogs(root: Path) -> list[str]:
    names = [f"n{number:08d}-Breed_{number}/n{number:08d}_{i}.jpg" for number in range(62) for i in (1, 2)]
    many(root / "Images", names)
    for name in names[:3]:
        file = root / "Annotation" / name.removesuffix(".jpg")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(f"<annotation>{BOX}</annotation>")
    (root / "Annotation" / names[2].removesuffix(".jpg")).write_text(f"<annotation>{BOX}{BOX}</annotation>")
    return names


def counts(listing) -> Counter[str]:
    return Counter(sample.split for sample in listing.samples)


def test_dogs_split_by_lists_or_by_class(tmp_path):
    names = dogs(tmp_path)
    assert find_layout(tmp_path) == "dogs"
    without = read_listing(tmp_path, published=True)
    for name, listed in ("train", names[::2]), ("test", [*names[1::2], "n1-x/lost.jpg"]):
        scipy.io.savemat(tmp_path / f"{name}_list.mat", {"file_list": texts(listed)})
    listing = read_listing(tmp_path)
    assert counts(listing) == {"train": 62, "test": 62}
    assert [line.partition(": ")[2] for line in listing.left_out] == ["not found; extract it again"]
    published = read_listing(tmp_path, published=True)
    assert counts(published) == counts(without) == {"train": 120, "test": 4}
    by_name = {f"{s.path.parent.name}/{s.path.name}": s for s in published.samples}
    first = by_name[names[0]]
    assert (first.category, first.item, first.label) == ("dog", "n00000000-Breed_0", "Breed 0")
    assert first.box_px == (4, 2, 40, 30)
    assert by_name[names[2]].box_px is None, "a picture of two dogs is used whole"
    assert {s.item for s in published.samples if s.split == "test"} == {f"n{n:08d}-Breed_{n}" for n in (60, 61)}


def test_dogs_may_be_folders_of_breeds(tmp_path):
    many(tmp_path, [f"breed-{number:03d}/{i}.jpg" for number in range(62) for i in range(5)])
    listing = read_listing(tmp_path, layout="dogs", published=True)
    assert counts(listing) == {"train": 300, "test": 10}
    assert any("has 10651 pictures to train and 9929 to test; found 300 and 10" in line for line in listing.noticed)
    assert counts(read_listing(tmp_path, layout="dogs")) == {"train": 248, "val": 62}


def aircraft(data: Path) -> None:
    many(data / "images", [f"{number:07d}.jpg" for number in range(104)])
    for key, of in (("variant", 1), ("family", 2), ("manufacturer", 52)):
        for place, split in enumerate(("train", "val", "test")):
            rows = [f"{n:07d} {key} {n // 2 // of:03d}" for n in range(104) if min(n % 4, 2) == place]
            (data / f"images_{key}_{split}.txt").write_text("\n".join(rows) + "\n")
    (data / "images_box.txt").write_text("0000000 3 4 40 30\n0000001 9 9 1 1\n")


@pytest.mark.parametrize("place", ["", "data", "fgvc-aircraft-2013b/data"])
def test_aircraft_tables_may_be_nested(tmp_path, place):
    aircraft(tmp_path / place)
    assert find_layout(tmp_path) == "aircraft"
    listing = read_listing(tmp_path)
    assert counts(listing) == {"train": 26, "val": 26, "test": 52}
    published = read_listing(tmp_path, published=True)
    assert counts(published) == {"train": 100, "test": 4}
    first = next(s for s in published.samples if s.path.stem == "0000000")
    assert (first.item, first.box_px) == ("variant 000", (2, 3, 40, 30))
    assert first.attributes == (("manufacturer", "manufacturer 000"), ("family", "family 000"))
    assert any("banner" in line for line in listing.noticed)


def test_aircraft_of_kaggle_has_csv_files(tmp_path):
    many(tmp_path / "fgvc-aircraft-2013b/data/images", [f"{n}.jpg" for n in range(4)])
    for split, rows in ("train", ["0.jpg,707-320,0", "1.jpg,727-200,1"]), ("test", ["2.jpg,707-320,0"]):
        (tmp_path / f"{split}.csv").write_text("\n".join(["filename,Classes,Labels", *rows]) + "\n")
    listing = read_listing(tmp_path, layout="aircraft")
    assert [(s.path.name, s.split, s.item) for s in listing.samples] == [
        ("2.jpg", "test", "707-320"),
        ("0.jpg", "train", "707-320"),
        ("1.jpg", "train", "727-200"),
    ]


def flowers(root: Path) -> None:
    labels = [n for n in range(1, 103) for _ in range(2)]
    many(root / "jpg", [f"image_{number:05d}.jpg" for number in range(1, len(labels) + 1)])
    scipy.io.savemat(root / "imagelabels.mat", {"labels": np.array([labels], np.uint8)})
    odd, even = np.arange(1, 205, 2), np.arange(2, 205, 2)
    parts = {"trnid": odd[None, :51], "valid": odd[None, 51:], "tstid": even[None, :-1]}
    scipy.io.savemat(root / "setid.mat", parts)


def test_flowers_halves_the_classes_that_there_are(tmp_path):
    flowers(tmp_path / "flowers-102")
    assert find_layout(tmp_path) == "flowers"
    listing = read_listing(tmp_path)
    assert counts(listing) == {"train": 51, "val": 51, "test": 101}
    assert "image_00204.jpg: is in none of its splits" in listing.left_out[0]
    published = read_listing(tmp_path, published=True)
    assert counts(published) == {"train": 102, "test": 102}
    assert {int(s.item) for s in published.samples if s.split == "test"} == set(range(52, 103))


def test_flowers_may_be_numbered_folders_with_names(tmp_path):
    many(tmp_path, [f"{split}/{number}/a.jpg" for split in ("train", "valid", "test") for number in range(1, 103)])
    (tmp_path / "cat_to_name.json").write_text('{"1": "pink primrose"}')
    published = read_listing(tmp_path, layout="flowers", published=True)
    assert {int(s.item) for s in published.samples if s.split == "train"} == set(range(1, 52))
    assert published.samples[0].label == "pink primrose"
    assert counts(read_listing(tmp_path, layout="flowers")) == {"train": 102, "val": 102, "test": 102}


def pets(root: Path, listed: str = "annotations") -> list[str]:
    breeds = [*(f"breed_{n:02d}" for n in range(36)), "Abyssinian"]
    names = [f"{breed}_{i}" for breed in breeds for i in (1, 10)]
    many(root / "images", [f"{name}.jpg" for name in names])
    rows = [f"{name} {i} {1 + (name[0] == 'b')} 1" for i, name in enumerate(names)]
    (root / listed).mkdir(parents=True)
    for file, some in (
        ("list", ["#Image CLASS-ID SPECIES BREED", *rows]),
        ("trainval", rows[::2]),
        ("test", rows[1::2]),
    ):
        (root / listed / f"{file}.txt").write_text("\n".join(some) + "\n")
    return names


@pytest.mark.parametrize("listed", ["annotations", "annotations/annotations"])
def test_pets_order_breeds_whatever_the_case(tmp_path, listed):
    pets(tmp_path, listed)
    assert find_layout(tmp_path) == "pets"
    listing = read_listing(tmp_path)
    assert counts(listing) == {"train": 37, "test": 37}
    assert {dict(s.attributes)["species"] for s in listing.samples if s.item == "Abyssinian"} == {"cat"}
    published = read_listing(tmp_path, published=True)
    training = {s.item for s in published.samples if s.split == "train"}
    assert training == {"Abyssinian", *(f"breed_{n:02d}" for n in range(18))}


def test_pets_names_of_pictures_tell_the_breeds(tmp_path):
    many(tmp_path / "images", ["great_pyrenees_1.jpg", "Abyssinian_2.jpg", "odd.jpg"])
    listing = read_listing(tmp_path, layout="pets")
    assert [(s.item, s.label) for s in listing.samples] == [
        ("Abyssinian", "Abyssinian"),
        ("great_pyrenees", "great pyrenees"),
    ]
    assert "expected a breed and a number" in listing.left_out[0]


def test_broken_tables_are_refused_by_name(tmp_path):
    flowers(tmp_path)
    scipy.io.savemat(tmp_path / "imagelabels.mat", {"labels": np.array([[1.5, 2.0]])})
    with pytest.raises(DataError, match=r"imagelabels\.mat: has no list labels of whole numbers"):
        read_listing(tmp_path)


def test_printed_pictures_of_flowers_and_pets_are_all_there_are():
    """Why Flowers trains on 51 classes: the paper's pictures of both sides are the whole data set."""
    whole = {"dogs": 20_580, "aircraft": 10_000, "flowers": 8_189, "pets": 7_349}
    assert {name: one.train_pictures + one.test_pictures for name, one in SPLITS.items()} == whole


def test_suffixes_in_capitals_are_found(tmp_path):
    """As some tools extract or copy them: the lists still say .jpg."""
    many(tmp_path / "dogs/Images", [f"n0000000{n}-Breed/n{n}.JPG" for n in (1, 2)])
    many(tmp_path / "pets/images", [f"Bengal_{n}.JPG" for n in (1, 2)])
    tables = tmp_path / "pets/annotations"
    tables.mkdir()
    for name, n in ("trainval.txt", 1), ("test.txt", 2):
        (tables / name).write_bytes(f"Bengal_{n} 1 1 1\r\n".encode())
    many(tmp_path / "aircraft/images", ["1000001.JPG"])
    for split in ("train", "val", "test"):
        rows = "\ufeff1000001 A 300.B4\r\n" if split == "train" else ""
        (tmp_path / f"aircraft/images_variant_{split}.txt").write_text(rows, encoding="utf-8")
    found = {name: read_listing(tmp_path / name, layout=name).samples for name in ("dogs", "pets", "aircraft")}
    assert {name: [one.path.suffix for one in samples] for name, samples in found.items()} == {
        "dogs": [".JPG"] * 2,
        "pets": [".JPG"] * 2,
        "aircraft": [".JPG"],
    }
    assert found["aircraft"][0].item == "A 300.B4"
