"""VeRi-776 and VehicleID: cameras, attributes, and lists that hold each other."""

from __future__ import annotations

from pathlib import Path

from dataset_formats.layouts import find_layout, read_listing
from tests.dataset_formats.samples import picture

HEAD = '<?xml version="1.0" encoding="gb2312"?>'
ITEM = '<Item imageName="{}" vehicleID="{}" cameraID="{}" colorID="{}" typeID="{}" />'


def veri(root: Path) -> Path:
    sets = {
        "train": ("image_train", ["0001_c001_00016450_0.jpg", "0001_c002_00016450_0.jpg"]),
        "query": ("image_query", ["0002_c002_00030600_0.jpg"]),
        "test": ("image_test", ["0002_c002_00030600_0.jpg", "0002_c003_00030605_0.jpg", "-1_x.jpg"]),
    }
    for seed, (split, (place, names)) in enumerate(sets.items()):
        for number, name in enumerate(names):
            picture(root / place / name, 10 * seed + number)
        (root / f"name_{split}.txt").write_text("\n".join([*names, "0009_c001_1.jpg"]) + "\n")
    items = [(name, *name.split("_")[:2], 5, 1 + number) for number, name in enumerate(sets["train"][1])]
    body = "".join(ITEM.format(*one) for one in items).replace('typeID="2"', 'typeID="0"')
    (root / "train_label.xml").write_text(f'{HEAD}<TrainingImages Version="1.0"><Items>{body}</Items></TrainingImages>')
    body = ITEM.format("0002_c002_00030600_0.jpg", "0002", "c002", 10, 9)
    (root / "test_label.xml").write_bytes(
        f"{HEAD}<TestImages><Items note='车'>{body}</Items></TestImages>".encode("gb2312")
    )
    return root


def test_veri_tells_cameras_colours_and_types(tmp_path):
    assert find_layout(veri(tmp_path)) == "veri"
    listing = read_listing(tmp_path, published=True)
    assert [(s.split, s.category, s.item, s.camera, dict(s.attributes)) for s in listing.samples] == [
        ("train", "vehicle", "0001", "c001", {"colour": "red", "type": "sedan"}),
        ("train", "vehicle", "0001", "c002", {"colour": "red"}),
        ("query", "vehicle", "0002", "c002", {"colour": "black", "type": "estate"}),
        ("gallery", "vehicle", "0002", "c002", {"colour": "black", "type": "estate"}),
        ("gallery", "vehicle", "0002", "c003", {}),
    ]
    assert sum("not found; extract it again" in line for line in listing.left_out) == 3
    assert sum("-1_x.jpg: found" in line for line in listing.left_out) == 1
    assert any("colour or type is no number of its lists: 1 (0001_c002" in line for line in listing.noticed)


def test_veri_without_lists_reads_its_folders(tmp_path):
    veri(tmp_path)
    for file in [*tmp_path.glob("*.txt"), *tmp_path.glob("*.xml")]:
        file.unlink()
    listing = read_listing(tmp_path)
    assert [s.split for s in listing.samples] == ["train", "train", "query", "gallery", "gallery"]
    assert any("the folders were listed: 3 (name_train.txt" in line for line in listing.noticed)


def test_vehicle_id_lists_hold_each_other(tmp_path):
    for number in range(1, 5):
        picture(tmp_path / "image" / f"{number:07d}.jpg", number)
    lists = {
        "train_list": ["0000001 7"],
        "test_list_800": ["0000002 8"],
        "test_list_1600": ["0000002 8", "0000003 9", "x"],
    }
    (tmp_path / "train_test_split").mkdir()
    for name, rows in lists.items():
        (tmp_path / "train_test_split" / f"{name}.txt").write_text("\n".join(rows) + "\n")
    (tmp_path / "attribute").mkdir()
    (tmp_path / "attribute/color_attr.txt").write_text("7 1\n8 5\n")
    (tmp_path / "attribute/model_attr.txt").write_text("8 0\n")
    (tmp_path / "attribute/model_names.txt").write_text("Audi A4 0\n")
    assert find_layout(tmp_path) == "vehicle_id"
    listing = read_listing(tmp_path)
    assert [(s.split, s.item, dict(s.attributes)) for s in listing.samples] == [
        ("train", "7", {"colour": "1"}),
        ("test", "8", {"colour": "5", "model": "Audi A4"}),
        ("test_1600", "9", {}),
    ]
    assert "expected a picture and a vehicle" in listing.left_out[0]
