"""RPC's baselines on a rendered data set of RPC's shape: single products to train on, checkout scenes to test on.

    python benchmarks/checkout.py      # into runs/checkout; a stopped run goes on; half an hour on two cores

Renders exemplars of a few products on white and scenes of three levels of clutter, and fills `edge-train table
rpc-checkout` on them, with three seeds. Whoever has RPC gives that folder to the same command. Writes
benchmarks/results/checkout.json. Needs ImageNet weights in ../shared/data or $FINESIGHT_DATA.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from datetime import date
from pathlib import Path

import numpy as np

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))

from benchmarks.grocery import machine  # noqa: E402
from benchmarks.results_file import read_table, write_results  # noqa: E402
from benchmarks.shared_data import TRUNK, WEIGHTS, require  # noqa: E402
from dataset_formats.coco.reader import write_coco  # noqa: E402
from dataset_formats.records import Annotation, NamedBox  # noqa: E402
from edge.imaging.image import encode_image  # noqa: E402
from trainer.evaluation.checkout_scenes import LEVELS, render_scenes  # noqa: E402
from trainer.synthetic.items import Item, catalogue  # noqa: E402
from trainer.synthetic.render import catalogue_picture  # noqa: E402
from trainer.synthetic.scene import box_of  # noqa: E402

RESULTS = ROOT / "benchmarks/results/checkout.json"
PRODUCTS, EXEMPLARS, SCENES = 4, 12, 20


def main() -> None:
    """Render the data, fill the table, and write the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pixels", type=int, default=160, help="input of the detector; default: %(default)s")
    parser.add_argument("--epochs", type=int, default=40, help="default: %(default)s")
    parser.add_argument("--seeds", default="0,1,2", help="default: %(default)s")
    parser.add_argument("--work", type=Path, default=ROOT / "runs/checkout", help="default: %(default)s")
    arguments = parser.parse_args()
    require(WEIGHTS)
    from trainer.cli import main as train

    data = arguments.work / "rpc"
    if not (data / "instances_test2019.json").is_file():
        write_rpc(data, products()[:PRODUCTS], EXEMPLARS, SCENES)
    out = arguments.work / "table"
    command = ["table", "rpc-checkout", "--data", str(data), "-o", str(out), "--seeds", arguments.seeds]
    command += [*TRUNK, "--pixels", str(arguments.pixels), "--epochs", str(arguments.epochs)]
    if failed := train(command):
        sys.exit(failed)
    report = read_table(out)
    sizes = {"products": PRODUCTS, "exemplars of each": EXEMPLARS, "test scenes of each level": SCENES}
    report |= {"data": sizes, "date": date.today().isoformat(), "machine": machine()}  # noqa: DTZ011
    write_results(RESULTS, report)
    print((out / "table.md").read_text())


def products() -> list[Item]:
    """Return the built-in items that lie on counters, those of each category in turn."""
    chosen = [item for item in catalogue() if item.category != "car"]
    place = {item: [one for one in chosen if one.category == item.category].index(item) for item in chosen}
    return sorted(chosen, key=lambda item: (place[item], item.category))


def write_rpc(folder: Path, items: Sequence[Item], exemplars: int, scenes: int, seed: int = 0) -> Path:
    """Render a data set in RPC's layout.

    Args:
        folder: folder to write to.
        items: the products.
        exemplars: pictures of each product alone, on white, for training.
        scenes: checkout scenes of each level for testing; a third as many for validation.
        seed: the same seed gives the same files.
    """
    names = [item.item_id for item in items]
    single = []
    for number, item in enumerate(items):
        for view in range(exemplars):
            image, mask = catalogue_picture(item, np.random.default_rng([seed, number, view]))
            box = NamedBox(tuple(float(side) for side in box_of(mask)), item.item_id, item.category)
            single.append(Annotation(_save(folder / "train2019", f"{item.item_id}-{view}.jpg", image), (box,)))
    write_coco(single, names, folder / "instances_train2019.json")
    for split, count in ("val", max(1, scenes // 3)), ("test", scenes):
        listed = []
        for level in LEVELS:
            for number, scene in enumerate(render_scenes(level, count, seed + (split == "test"), tuple(items))):
                boxes = tuple(
                    NamedBox(
                        tuple(float(side) for side in one.box_px),
                        one.item_id,
                        one.category,
                        visible=one.visible_fraction,
                    )
                    for one in scene.objects
                )
                name = _save(folder / f"{split}2019", f"{level}-{number}.jpg", scene.image_rgb)
                listed.append(Annotation(name, boxes, level=level))
        write_coco(listed, names, folder / f"instances_{split}2019.json")
    return folder


def _save(folder: Path, name: str, image: np.ndarray) -> str:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_bytes(encode_image(image, ".jpg", 95))
    return name


if __name__ == "__main__":
    main()
