"""Mutated files for every reader of data sets: each is read, or refused with one error, quickly, in bounded memory.

    python benchmarks/fuzz_readers.py [--inputs 100000] [--seed 0] [format ...]  # default: all formats

A mutation flips, cuts, repeats, copies or inserts bytes of a small valid file, or puts a word of a list in the place of
another. Writes benchmarks/results/fuzz_readers.json: for each format the inputs, how many were read and refused, the
slowest one and the largest resident memory. Exits 1 at the first input that ends otherwise, and keeps that input.
"""

from __future__ import annotations

import argparse
import copy
import json
import logging
import os
import random
import re
import resource
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from datetime import date
from pathlib import Path
from types import FrameType
from typing import Any

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))

from dataset_formats.layouts import read_listing  # noqa: E402
from edge.errors import FinesightError  # noqa: E402

RESULTS = ROOT / "benchmarks/results/fuzz_readers.json"
LIMIT_S = 10  # for one input; a small file takes about a millisecond
MEMORY_BYTES = 4 << 30
_SLOW = {"cars": 100}  # its MATLAB files are read in a process of their own: fewer inputs by this factor
WORDS = [
    *(b"", b"null", b"true", b"[]", b"{}", b'""', b"-1", b"0", b"1e400", b"NaN", b"Infinity", b"9" * 400, b"1e-300"),
    *(b"\0", b"\xff\xfe", b"\xef\xbb\xbf", b"\xed\xa0\x80", b"\\ud800", b"..", b"../../../etc/passwd", b"/", b"C:\\a"),
    *(b"<", b"&x;", b"]]>", b"<!DOCTYPE x [<!ENTITY x 'x'>]>", b"*a", b"&a ", b"!!python/object", b"? ", b"- " * 50),
    *(b"[" * 2000, b'{"a":' * 2000, b"<a>" * 2000, b";" * 3000, b"x" * 70000, b'"', b"\r", b"\t", b"0,5", b"a.jpg"),
]
VALUES: list[Any] = [
    *(
        None,
        True,
        False,
        0,
        -1,
        3,
        2**70,
        10**400,
        1e308,
        float("nan"),
        float("inf"),
        0.5,
        "",
        "1",
        "a.png",
        "x" * 3000,
    ),
    *(
        "\ud800",
        "a\0b",
        "..",
        "/etc/passwd",
        [],
        {},
        [[]],
        [1, 2],
        [1, 2, 3, 4],
        [1, 2, 3, 4, 0.5],
        {"id": 1},
        [{}],
        "²",
    ),
]
_VALUES = re.compile(rb"((?<=[>\"'\s,;=:])[\w.+-]+(?=[<\"'\s,;]))")
_PIECES = re.compile(rb"[\w.+-]+|[^\w\s]|\s+")

COCO = {
    "images": [
        {"id": 1, "file_name": "a.png", "width": 48, "height": 32, "split": "val"},
        {"id": 2, "file_name": "b.png"},
    ],
    "annotations": [
        {"id": 1, "image_id": 1, "category_id": 3, "bbox": [4, 2, 20, 10], "iscrowd": 0, "visible_fraction": 0.9},
        {"id": 2, "image_id": 2, "category_id": 5, "bbox": [1, 2, 3, 4], "segmentation": [[1, 2, 4, 2, 4, 6]]},
    ],
    "categories": [{"id": 3, "name": "cola", "supercategory": "can"}, {"id": 5, "name": "milk"}],
}
VOC = """<?xml version="1.0" encoding="utf-8"?><annotation><folder>x</folder><filename>a.png</filename><size><width>48
</width><height>32</height></size><object><name>cola</name><difficult>0</difficult><bndbox><xmin>4</xmin><ymin>2</ymin>
<xmax>24</xmax><ymax>12</ymax></bndbox></object><object><type>robndbox</type><name>milk</name><robndbox><cx>20</cx>
<cy>16</cy><w>10</w><h>6</h><angle>0.5</angle></robndbox></object></annotation>"""
CVAT = """<?xml version="1.0" encoding="utf-8"?><annotations><version>1.1</version><meta><task><labels><label><name>cola
</name></label></labels></task></meta><image id="0" name="a.png" width="48" height="32" subset="train"><box label="cola"
source="manual" occluded="0" xtl="4" ytl="2" xbr="24" ybr="12" rotation="20" z_order="0"></box><polygon label="cola"
points="1,2;9,2;9,8" z_order="0"></polygon></image><image id="1" name="b.png" width="48" height="32"></image>
</annotations>"""
STUDIO = [
    {
        "id": 1,
        "data": {"image": "/data/upload/3/1a2b3c4d-a.png"},
        "annotations": [
            {
                "id": 4,
                "was_cancelled": False,
                "updated_at": "2024-02-01T10:00:00Z",
                "result": [
                    {
                        "id": "r1",
                        "type": "rectanglelabels",
                        "original_width": 48,
                        "original_height": 32,
                        "image_rotation": 0,
                        "value": {
                            "x": 18,
                            "y": 25,
                            "width": 26,
                            "height": 50,
                            "rotation": 10,
                            "rectanglelabels": ["a"],
                        },
                    }
                ],
            }
        ],
    },
    {"id": 2, "data": {"image": "b.png"}, "annotations": []},
    {"id": 3, "data": {"image": "c.png"}, "annotations": [{"id": 5, "was_cancelled": False, "result": []}]},
]
STUDIO_MIN = [
    {"image": "c.png", "id": 2, "label": []},
    {
        "image": "/data/upload/3/1a2b3c4d-a.png",
        "id": 1,
        "label": [
            {
                "x": 18,
                "y": 25,
                "width": 26,
                "height": 50,
                "rectanglelabels": ["can"],
                "original_width": 48,
                "original_height": 32,
            }
        ],
    },
]
TAGS = {
    "files": [
        {"filename": "a.png", "tags": [{"tag": "ace", "left": 0.2, "top": 0.1, "width": 0.5, "height": 0.4}]},
        {"filename": "b.png", "tags": [{"tag": "king", "left": 0.1, "top": 0.1, "width": 0.2, "height": 0.3}]},
    ]
}
INDEX = 'path,split,category,item,label\na.png,train,jar,plum,"Plum, 1 l"\nb.png,val,jar,pear,Pear\n'
SOP = "image_id class_id super_class_id path\n1 1 1 bicycle_final/a.JPG\n2 1 1 bicycle_final/b.JPG\n"


def _whole(name: str, text: str) -> Callable[[Path], Path]:
    def build(root: Path) -> Path:
        file = root / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
        return file

    return build


def _voc(root: Path) -> Path:
    _whole("b.xml", VOC.replace("a.png", "b.png"))(root)
    return _whole("a.xml", VOC)(root)


def _yolo(name: str) -> Callable[[Path], Path]:
    """Build a set whose file of this name is mutated."""

    def build(root: Path) -> Path:
        texts = {
            "data.yaml": "names: {0: cola, '7': milk}\npath: .\ntrain: list.txt\nval: [images]\nnc: 2\n",
            "list.txt": "./a.png\nb.png\n",
            "a.txt": "0 .5 .5 .2 .2\n7 .1 .1 .4 .1 .4 .4 .1 .4\n0 .2 .2 .1 .1 0.9\n",
            "images/c.txt": "7 .5 .5 .2 .2\n",
        }
        for one, text in texts.items():
            _whole(one, text)(root)
        return root / name

    return build


def _darknet(root: Path) -> Path:
    _whole("obj.names", "cola\nmilk\n")(root)
    _whole("train.txt", "data/obj_train_data/a.png\n")(root)
    _whole("obj_train_data/a.txt", "0 .5 .5 .2 .2\n")(root)
    return _whole("obj.data", "classes = 2\ntrain = data/train.txt\nnames = data/obj.names\nbackup = backup/\n")(root)


def _cub(name: str) -> Callable[[Path], Path]:
    def build(root: Path) -> Path:
        from tests.dataset_formats.samples import cub

        if not (root / "images").is_dir():
            cub(root, classes=4)
        return root / f"{name}.txt"

    return build


def _sop(root: Path) -> Path:
    _whole("Ebay_test.txt", SOP.replace("1 1 1", "3 2 1").replace("2 1 1", "4 2 1").replace(".JPG", "2.JPG"))(root)
    return _whole("Ebay_train.txt", SOP)(root)


def _cars(root: Path) -> Path:
    from tests.dataset_formats.samples import cars_merged

    if not (root / "car_ims").is_dir():
        cars_merged(root, classes=3)
    return root / "cars_annos.mat"


def _tables(name: str, texts: dict[str, str], *pictures: str) -> Callable[[Path], Path]:
    """Build a set of text tables and pictures; the file of this name is mutated."""

    def build(root: Path) -> Path:
        from tests.dataset_formats.samples import picture

        for number, one in enumerate(pictures):
            if not (root / one).is_file():
                picture(root / one, number)
        for one, text in texts.items():
            _whole(one, text)(root)
        return root / name

    return build


AIRCRAFT = {
    "images_variant_train.txt": "0000001 707-320\n0000002 A340-300\n",
    "images_variant_test.txt": "0000003 707-320\n",
    "images_family_train.txt": "0000001 Boeing 707\n0000002 A340\n",
    "images_box.txt": "0000001 3 4 40 30\n0000002 1 1 48 32\n",
}
PETS = {
    "annotations/list.txt": "#Image CLASS-ID SPECIES BREED\nAbyssinian_1 1 1 1\nbeagle_2 2 2 1\n",
    "annotations/trainval.txt": "Abyssinian_1 1 1 1\n",
    "annotations/test.txt": "beagle_2 2 2 1\n",
}
VERI_ITEM = '<Item imageName="0001_c001_1.jpg" vehicleID="0001" cameraID="c001" colorID="5" typeID="1" />'
VERI = {
    "name_train.txt": "0001_c001_1.jpg\n0001_c002_1.jpg\n",
    "name_query.txt": "0002_c001_1.jpg\n",
    "name_test.txt": "0002_c001_1.jpg\n",
    "train_label.xml": '<?xml version="1.0" encoding="gb2312"?>'
    f"<TrainingImages><Items>{VERI_ITEM}</Items></TrainingImages>",
}
VEHICLE_ID = {
    "train_test_split/train_list.txt": "0000001 7\n0000002 8\n",
    "train_test_split/test_list_800.txt": "0000003 9\n",
    "attribute/color_attr.txt": "7 1\n8 2\n",
}
_AIRCRAFT_PICTURES = tuple(f"images/000000{number}.jpg" for number in (1, 2, 3))
_PETS_PICTURES = ("images/Abyssinian_1.jpg", "images/beagle_2.jpg")
_VERI_PICTURES = (
    *(f"image_train/0001_c00{number}_1.jpg" for number in (1, 2)),
    "image_query/0002_c001_1.jpg",
    "image_test/0002_c001_1.jpg",
)
_VEHICLE_ID_PICTURES = tuple(f"image/000000{number}.jpg" for number in (1, 2, 3))

# name: (builder of the set, which returns the file to mutate; layout; whether the folder is read or the file)
FORMATS: dict[str, tuple[Callable[[Path], Path], str, bool]] = {
    "coco": (_whole("scenes.json", json.dumps(COCO)), "coco", False),
    "voc": (_voc, "voc", True),
    "cvat": (_whole("annotations.xml", CVAT), "cvat", False),
    "label_studio": (_whole("export.json", json.dumps(STUDIO)), "label_studio", False),
    "label_studio_min": (_whole("export.json", json.dumps(STUDIO_MIN)), "label_studio", False),
    "yolo_lines": (_yolo("a.txt"), "yolo", True),
    "yolo_yaml": (_yolo("data.yaml"), "yolo", True),
    "yolo_list": (_yolo("list.txt"), "yolo", True),
    "yolo_darknet": (_darknet, "yolo", True),
    "tags": (_whole("boxes.json", json.dumps(TAGS)), "tags", False),
    "index": (_whole("index.csv", INDEX), "index", False),
    "cub_images": (_cub("images"), "cub", True),
    "cub_boxes": (_cub("bounding_boxes"), "cub", True),
    "sop": (_sop, "sop", True),
    "cars": (_cars, "cars", True),
    "aircraft": (_tables("images_variant_train.txt", AIRCRAFT, *_AIRCRAFT_PICTURES), "aircraft", True),
    "aircraft_boxes": (_tables("images_box.txt", AIRCRAFT, *_AIRCRAFT_PICTURES), "aircraft", True),
    "pets": (_tables("annotations/trainval.txt", PETS, *_PETS_PICTURES), "pets", True),
    "veri": (_tables("name_train.txt", VERI, *_VERI_PICTURES), "veri", True),
    "veri_labels": (_tables("train_label.xml", VERI, *_VERI_PICTURES), "veri", True),
    "vehicle_id": (_tables("train_test_split/train_list.txt", VEHICLE_ID, *_VEHICLE_ID_PICTURES), "vehicle_id", True),
}


def mutate(data: bytes, rng: random.Random) -> bytes:
    """Return a file with one to four mutations."""
    for _ in range(rng.randint(1, 4)):
        start = rng.randrange(len(data) + 1)
        end = min(len(data), start + rng.choice((1, 2, 8, 40)))
        kind = rng.randrange(7)
        if kind == 0 and data:  # flip bits
            changed = bytearray(data)
            for _ in range(rng.choice((1, 1, 4))):
                changed[rng.randrange(len(changed))] ^= 1 << rng.randrange(8)
            data = bytes(changed)
        elif kind == 1:  # cut out, or cut off
            data = data[:start] + (data[end:] if rng.random() < 0.7 else b"")
        elif kind == 2:  # insert
            data = data[:start] + rng.choice(WORDS) + data[start:]
        elif kind == 3:  # repeat
            data = data[:end] + data[start:end] * rng.choice((1, 3, 60)) + data[end:]
        elif kind == 4:  # copy elsewhere
            to = rng.randrange(len(data) + 1)
            data = data[:to] + data[start:end] + data[to:]
        else:  # one word in the place of another; most often, so that the structure stays whole
            pieces = _PIECES.findall(data)
            if pieces:
                pieces[rng.randrange(len(pieces))] = rng.choice((rng.choice(WORDS), rng.choice(pieces)))
                data = b"".join(pieces)
    return data[: 1 << 20]


def mutate_values(data: bytes, rng: random.Random) -> bytes:
    """Return a file whose markup stays: one to four numbers or names are replaced."""
    pieces = _VALUES.split(data)
    for _ in range(rng.randint(1, 4)):
        at = rng.randrange(1, len(pieces), 2)
        pieces[at] = rng.choice(
            (rng.choice(pieces[1::2]), rng.choice((b"", b"-1", b"0", b"1e400", b"nan", b"7", b"x")))
        )
    return b"".join(pieces)


def mutate_json(data: bytes, rng: random.Random) -> bytes:
    """Return a JSON file that is still JSON: one to four values are replaced, repeated or removed."""
    tree = json.loads(data)
    for _ in range(rng.randint(1, 4)):
        places = list(_places(tree))
        holder, key = rng.choice(places)
        kind = rng.randrange(5)
        if kind == 0:
            del holder[key]
        elif kind == 1 and isinstance(holder, list):
            holder.append(json.loads(json.dumps(holder[key])))
        elif kind == 2:
            holder[key] = json.loads(json.dumps(rng.choice([inner[at] for inner, at in places])))
        else:
            holder[key] = copy.deepcopy(rng.choice(VALUES))
        if not tree:
            break
    return json.dumps(tree).encode("utf-8", "surrogatepass")


def _places(tree: Any) -> Iterator[tuple[Any, Any]]:
    for key in list(tree) if isinstance(tree, dict) else range(len(tree)) if isinstance(tree, list) else ():
        yield tree, key
        yield from _places(tree[key])


def _out_of_time(_signal: int, _frame: FrameType | None) -> None:
    raise TimeoutError(f"no answer after {LIMIT_S} s")


def fuzz(name: str, inputs: int, seed: int) -> dict[str, object]:
    """Read mutated files of one format; return counts, or the failure under `failed`."""
    build, layout, of_folder = FORMATS[name]
    rng = random.Random(f"{name} {seed}")
    counts = {"inputs": inputs, "read": 0, "with_records_left_out": 0, "refused": 0}
    slowest_s = 0.0
    signal.signal(signal.SIGALRM, _out_of_time)
    with tempfile.TemporaryDirectory(dir="/dev/shm" if os.access("/dev/shm", os.W_OK) else None) as folder:  # noqa: S108
        root = Path(folder)
        from tests.dataset_formats.samples import picture

        names = ["obj_train_data/a.png"] if name == "yolo_darknet" else ["a.png", "b.png", "c.png"]
        names += ["images/c.png"] if layout == "yolo" else []
        names += [f"bicycle_final/{one}.JPG" for one in ("a", "b", "a2", "b2")] if layout == "sop" else []
        for number, picture_name in enumerate(names):
            picture(root / picture_name, number)
        target = build(root)
        whole = target.read_bytes()
        read_listing(root if of_folder else target, layout=layout)  # the file as it was built is read
        for number in range(inputs):
            keep_structure = rng.random() < 0.6
            if keep_structure and target.suffix == ".json":
                data = mutate_json(whole, rng)
            else:
                data = mutate_values(whole, rng) if keep_structure else mutate(whole, rng)
            target.write_bytes(data)
            started = time.perf_counter()
            signal.alarm(LIMIT_S)
            try:
                listing = read_listing(root if of_folder else target, layout=layout)
                counts["read"] += 1
                counts["with_records_left_out"] += bool(listing.left_out)
                json.dumps([listing.left_out, listing.noticed]).encode()
                "".join([*listing.left_out, *listing.noticed]).encode()
            except FinesightError as error:
                counts["refused"] += 1
                str(error).encode()
            except BaseException as error:  # noqa: BLE001 any other end is a fault of the reader
                kept = Path(tempfile.gettempdir()) / f"fuzz-{name}-{number}{target.suffix}"
                kept.write_bytes(data)
                return counts | {"failed": f"input {number}: {type(error).__name__} {error!s:.200}; kept as {kept}"}
            finally:
                signal.alarm(0)
            slowest_s = max(slowest_s, time.perf_counter() - started)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return counts | {"slowest_ms": round(slowest_s * 1000, 1), "peak_memory_mib": round(peak)}


def main() -> None:
    """Fuzz each format in a process of its own."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("formats", nargs="*", metavar="format", help=f"of {', '.join(FORMATS)}")
    parser.add_argument("--inputs", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--alone", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.alone:
        logging.disable()
        resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
        print(json.dumps(fuzz(args.formats[0], args.inputs, args.seed)))
        return
    from benchmarks.grocery import machine

    report = json.loads(RESULTS.read_text()) if RESULTS.exists() else {"formats": {}}
    failed = False
    for name in args.formats or FORMATS:
        inputs = max(1, args.inputs // _SLOW.get(name, 1))
        command = [sys.executable, __file__, "--alone", "--inputs", str(inputs), "--seed", str(args.seed), name]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        found = json.loads(done.stdout) if done.returncode == 0 else {"failed": done.stderr[-400:]}
        failed |= "failed" in found
        print(name, json.dumps(found), flush=True)
        report["formats"][name] = found
        report |= {"date": date.today().isoformat(), "machine": machine(), "seed": args.seed}  # noqa: DTZ011
        if args.inputs >= 100_000:  # a short try is no result
            RESULTS.write_text(json.dumps(report, indent=1) + "\n")
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
