"""The default embedder beside a plain fine-tuning of the same network: same pictures, epochs and input size.

    python benchmarks/yardstick.py rendered             # renders 70 items; minutes on one core
    python benchmarks/yardstick.py groceries            # ten photos of each of 60 items
    python benchmarks/yardstick.py runs/my/index.csv    # any data set with the splits `train` and `val`

The plain fine-tuning is a cosine softmax over all items on the pooled trunk, with batch norm frozen. It reads its
pictures itself, so that a fault of the trainer's loader shows. `untuned` are the pooled features of the published
weights. Each is measured by Recall@1: `val` pictures searched among `train` ones. The defaults of `edge-train embedder`
must not be below the plain fine-tuning on any data set. Adds a row to benchmarks/results/yardstick.json. Needs ImageNet
weights in ../shared/data or $FINESIGHT_DATA.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import time
from collections import Counter
from dataclasses import dataclass
from datetime import date
from pathlib import Path

import cv2
import numpy as np
import torch
from torch import Tensor, nn

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))

from benchmarks.grocery import machine  # noqa: E402
from benchmarks.shared_data import DATA, WEIGHTS, require, write_csv  # noqa: E402
from dataset_formats.decode import read_picture  # noqa: E402
from dataset_formats.records import Sample  # noqa: E402
from edge.types import Image  # noqa: E402
from trainer.data.dataset import read_samples  # noqa: E402
from trainer.embedder_recipe import EmbedderRecipe  # noqa: E402
from trainer.loop.training_loop import keep_freed_memory  # noqa: E402
from trainer.metrics import rank, recall_at, similarity  # noqa: E402
from trainer.models.backbone import Trunk, create_trunk  # noqa: E402
from trainer.synthetic.write_dataset import write_dataset  # noqa: E402
from trainer.tasks.embedder import train_embedders  # noqa: E402

RESULTS = ROOT / "benchmarks/results/yardstick.json"
TRUNK_LR, CENTRE_LR, BATCH = 6e-4, 6e-3, 32


def main() -> None:
    """Measure one data set, and add its row to the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", help="rendered, groceries, or a data set")
    parser.add_argument("--root", type=Path, help="folder of the paths in a CSV; default: its own folder")
    parser.add_argument("--name", help="name of the row; default: the data set's")
    parser.add_argument("--px", type=int, default=96, help="width and height of the input; default: %(default)s")
    parser.add_argument("--epochs", type=int, default=10, help="default: %(default)s")
    parser.add_argument("--per-item", type=int, default=10, help="most training pictures; default: %(default)s")
    parser.add_argument("--seed", type=int, default=0, help="default: %(default)s")
    parser.add_argument("--work", type=Path, default=ROOT / "runs/yardstick", help="default: %(default)s")
    arguments = parser.parse_args()
    require(WEIGHTS)
    keep_freed_memory()
    torch.set_num_threads(1)
    work = arguments.work.resolve()
    listed = samples_of(arguments.data, arguments.root, work)
    recipe = recipe_of(write_index(listed, work, arguments.per_item), arguments)
    shown = read_samples(recipe.data.index)
    train, val = (Pictures.read([s for s in shown if s.split == split], arguments.px) for split in ("train", "val"))
    row: dict[str, object] = {"items": len(set(train.items)), "train": len(train.items), "val": len(val.items)}
    row |= {"px": arguments.px, "epochs": arguments.epochs, "seed": arguments.seed}
    trunk = create_trunk("mobilenetv2_100", pretrained=str(WEIGHTS), options={"pad_type": ""})
    network = Plain(trunk, sorted(set(train.items)))
    row["untuned"] = recall(network, train, val)
    started = time.process_time()
    fine_tune(network, train, arguments)
    row["plain_cpu_s"] = round(time.process_time() - started)
    row["plain"] = recall(network, train, val)
    shutil.rmtree(work / "run", ignore_errors=True)
    started = time.process_time()
    card = train_embedders(recipe, work / "run")[0]
    row["edge_train_cpu_s"] = round(time.process_time() - started)
    row["edge_train"] = round(100 * card.metrics["recall_1_train"], 1)
    row |= {"machine": machine(), "date": date.today().isoformat()}  # noqa: DTZ011
    rows = json.loads(RESULTS.read_text()) if RESULTS.is_file() else {}
    rows[arguments.name or Path(arguments.data).stem] = row
    RESULTS.write_text(json.dumps(rows, indent=1) + "\n")
    print(json.dumps(row, indent=1))


def samples_of(data: str, root: Path | None, work: Path) -> list[Sample]:
    """List the pictures of a data set by name or path; render it where that is needed."""
    if data == "groceries":
        return read_samples(DATA / "grocery/index.csv", DATA)
    if data == "rendered":
        index = work / "rendered/index.csv"
        if not index.is_file():
            write_dataset(work / "rendered", 4, scenes=0, crops_per_item=16, catalogue_pictures=1)
        return read_samples(index)
    return read_samples(Path(data), root)


def write_index(listed: list[Sample], work: Path, per_item: int) -> Path:
    """Write the first training pictures of each item that has validation pictures, and those."""
    searched = {sample.item for sample in listed if sample.split == "val"}
    shown: Counter[str] = Counter()
    rows = []
    for one in listed:
        if one.item not in searched or one.split not in {"train", "val"}:
            continue
        shown[one.item] += one.split == "train"
        if one.split == "val" or shown[one.item] <= per_item:
            rows.append((one.path.resolve(), one.split, one.category, one.item))
    return write_csv(work / "index.csv", ("path", "split", "category", "item"), rows)


def recipe_of(index: Path, arguments: argparse.Namespace) -> EmbedderRecipe:
    """Return the defaults of an embedder, on these pictures from these weights."""
    half = (0.5, 0.5, 0.5)
    return EmbedderRecipe(
        kind="embedder",
        seed=arguments.seed,
        data={"index": index},
        input={"width": arguments.px, "height": arguments.px, "mean": half, "std": half, "crop_margin": 0.0},
        backbone={"name": "mobilenetv2_100", "pretrained": str(WEIGHTS), "options": {"pad_type": ""}},
        optimiser={"epochs": arguments.epochs, "evaluate_every": arguments.epochs, "device": "cpu", "threads": 1},
    )


@dataclass(frozen=True)
class Pictures:
    """Pictures in memory, and the item of each."""

    images_rgb: list[Image]
    items: list[str]
    px: int  # width and height of the canvas

    @classmethod
    def read(cls, samples: list[Sample], px: int) -> Pictures:
        """Read pictures; shrink their shorter side to 1.6 canvases."""
        images = [read_picture(sample.path)[0] for sample in samples]
        shares = [min(1.0, 1.6 * px / min(image.shape[:2])) for image in images]
        small = [
            cv2.resize(image, None, fx=share, fy=share, interpolation=cv2.INTER_AREA)
            for image, share in zip(images, shares, strict=True)
        ]
        return cls([np.asarray(image, np.uint8) for image in small], [sample.item for sample in samples], px)

    def canvases(self) -> list[Image]:
        """Stretch each picture to the canvas."""
        size = (self.px, self.px)
        stretched = [cv2.resize(image, size, interpolation=cv2.INTER_AREA) for image in self.images_rgb]
        return [np.asarray(image, np.uint8) for image in stretched]


class Plain(nn.Module):
    """The pooled trunk, of unit length, and one centre for each item."""

    def __init__(self, trunk: Trunk, items: list[str]) -> None:
        super().__init__()
        self.items = items
        self.trunk, self.centres = trunk, nn.Linear(trunk.channels[-1], len(items), bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Map (n, 3, h, w) to (n, channels), rows of unit length."""
        return nn.functional.normalize(self.trunk(x)[-1].mean(dim=(2, 3)), dim=1)

    def logits(self, x: Tensor) -> Tensor:
        """Map (n, 3, h, w) to (n, items)."""
        return 20.0 * nn.functional.linear(
            nn.functional.dropout(self(x), 0.2), nn.functional.normalize(self.centres.weight, dim=1)
        )


def to_input(canvases: list[Image]) -> Tensor:
    """Map canvases to (n, 3, h, w), -1 to 1."""
    x = torch.from_numpy(np.stack(canvases)).permute(0, 3, 1, 2).float() / 127.5 - 1.0
    return x.contiguous(memory_format=torch.channels_last)


def fine_tune(network: Plain, train: Pictures, arguments: argparse.Namespace) -> None:
    """Fine-tune as a short script would: AdamW, one cycle, shuffled batches, random resized crops, flips."""
    torch.manual_seed(arguments.seed)
    rng = np.random.default_rng(arguments.seed)
    network.to(memory_format=torch.channels_last)
    labels = torch.tensor([network.items.index(item) for item in train.items])
    parts = ((network.trunk, TRUNK_LR), (network.centres, CENTRE_LR))
    groups = [{"params": part.parameters(), "lr": lr} for part, lr in parts]
    optimiser = torch.optim.AdamW(groups, weight_decay=0.02)
    steps = arguments.epochs * (len(labels) // BATCH)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, [lr for _, lr in parts], total_steps=steps)
    for epoch in range(arguments.epochs):
        network.train()
        for part in network.modules():
            if isinstance(part, nn.BatchNorm2d):
                part.eval()
        order = rng.permutation(len(labels))
        for start in range(0, len(order) - BATCH + 1, BATCH):
            indices = order[start : start + BATCH]
            x = to_input([random_crop(train.images_rgb[i], train.px, rng) for i in indices])
            loss = nn.functional.cross_entropy(network.logits(x), labels[indices], label_smoothing=0.05)
            optimiser.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(network.parameters(), 5.0)
            optimiser.step()
            schedule.step()
        print(f"plain {epoch + 1}/{arguments.epochs}: loss {float(loss.detach()):.3f}", flush=True)


def random_crop(image_rgb: Image, px: int, rng: np.random.Generator) -> Image:
    """Cut 45 to 100 % of a picture out, stretch it to the canvas, flip half of them, change the light."""
    height, width = image_rgb.shape[:2]
    side, aspect = rng.uniform(0.45, 1.0) ** 0.5, np.exp(rng.uniform(np.log(0.8), np.log(1.25)))
    size_y, size_x = min(height, int(height * side * aspect)), min(width, int(width * side / aspect))
    top, left = rng.integers(height - size_y + 1), rng.integers(width - size_x + 1)
    cut = cv2.resize(image_rgb[top : top + size_y, left : left + size_x], (px, px), interpolation=cv2.INTER_LINEAR)
    if rng.random() < 0.5:
        cut = cut[:, ::-1]
    return (cut * rng.uniform(0.7, 1.3) + rng.uniform(-20.0, 20.0)).clip(0, 255).astype(np.uint8)


def recall(network: Plain, train: Pictures, val: Pictures) -> float:
    """Return Recall@1 of the validation pictures among the training pictures, in percent."""
    network.eval()
    with torch.no_grad():
        among, queries = (torch.cat([network(to_input([one])) for one in part.canvases()]) for part in (train, val))
    ranked = rank(similarity(queries.numpy(), among.numpy()), val.items, train.items)
    return round(100 * float(recall_at(ranked, 1).mean()), 1)


if __name__ == "__main__":
    main()
