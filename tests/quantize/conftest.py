"""Fixtures: sample crops on disk and the exported sample networks."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest

from edge.imaging.image import encode_image
from quantize.dataset import Data, read_samples, read_scenes


@pytest.fixture(scope="session")
def data_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write crops of six items in three splits, and their index."""
    from tests.quantize_samples import CATEGORIES, ITEMS_OF, crop_of  # needs torch

    folder = tmp_path_factory.mktemp("data")
    rows = []
    for split, count, first_seed in ("train", 4, 0), ("val", 12, 100), ("catalogue", 2, 300):
        for category in CATEGORIES:
            for item in ITEMS_OF[category]:
                for number in range(count):
                    name = f"{split}-{item}-{number}.png"
                    (folder / name).write_bytes(encode_image(crop_of(item, first_seed + number), ".png"))
                    rows.append((name, split, category, item))
    with (folder / "index.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("path", "split", "category", "item"), *rows])
    _write_scenes(folder)
    return folder


def _write_scenes(folder: Path) -> None:
    from tests.quantize_samples import crop_of

    images, annotations = [], []
    for number in range(40):
        generator = np.random.default_rng(number)
        scene = np.full((48, 64, 3), 60, np.uint8)
        x, y = int(generator.integers(0, 40)), int(generator.integers(0, 24))
        scene[y : y + 20, x : x + 20] = crop_of("yellow", number)[:20, :20]
        (folder / f"scene-{number}.png").write_bytes(encode_image(scene, ".png"))
        images.append({"id": number, "file_name": f"scene-{number}.png", "split": "train" if number < 8 else "val"})
        annotations.append({"image_id": number, "bbox": [x, y, 20, 20]})
    (folder / "scenes.json").write_text(json.dumps({"images": images, "annotations": annotations}))


@pytest.fixture(scope="session")
def data(data_folder: Path) -> Data:
    samples, _ = read_samples(data_folder / "index.csv")
    scenes, _ = read_scenes(data_folder / "scenes.json")
    return Data(samples, scenes, calibration_images=24)


@pytest.fixture(scope="session")
def exported(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Export FP32 ONNX files by kind, each with its spec beside it."""
    from quantize.export import export_module
    from tests.quantize_samples import network

    folder = tmp_path_factory.mktemp("exported")
    paths = {}
    for kind in ("detector", "classifier", "describing", "embedder", "localiser"):
        paths[kind] = folder / f"{kind}.onnx"
        net, spec = network(kind)
        export_module(net, spec, paths[kind])
    return paths
