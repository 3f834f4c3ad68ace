"""From masks to a recognised picture by the commands: localise, lay on white, classify and embed, rank by outlines."""

from __future__ import annotations

import json

import numpy as np

from edge.cli import main as edge
from edge.imaging.image import encode_image
from quantize.cli import main as edge_quantize
from tests.trainer.toy import write_masks
from trainer.cli import main as edge_train

SIZE = ["input.width=32", "input.height=32", "input.resize=stretch"]
SHORT = ["optimiser.epochs=1", "optimiser.evaluate_every=1", "optimiser.device=cpu", "optimiser.batch=8"]
TINY = ["backbone.name=mobilenetv4_conv_small_050", "backbone.pretrained=none", "backbone.strides=[8]"]


def with_sets(*changes: str) -> list[str]:
    return [word for change in changes for word in ("--set", change)]


def write_discs(folder) -> None:
    """Write ten pictures of each of two items: discs with a white and with a black bar, on noise."""
    rows = ["path,split,category,item"]
    for item, tone in ("white", 255), ("black", 0):
        for number in range(12):
            rng = np.random.default_rng((tone, number))
            y, x = np.mgrid[:40, :40]
            picture = rng.integers(60, 110, (40, 40, 3)).astype(np.uint8)
            picture[np.hypot(x - 20, y - 20) < 14] = (230, 200, 40)
            picture[16:24, 12:28] = tone
            (folder / f"{item}-{number}.png").write_bytes(encode_image(picture, ".png"))
            rows.append(f"{item}-{number}.png,{'val' if number > 7 else 'train'},disc,{item}")
    (folder / "index.csv").write_text("\n".join(rows))


def test_background_goes_from_masks_to_a_recognised_picture(tmp_path, capsys):
    index, discs = write_masks(tmp_path / "masks"), tmp_path / "discs"
    discs.mkdir()
    write_discs(discs)
    configs, runs = "configs/train", tmp_path / "runs"
    small = with_sets(*SIZE, *SHORT, f"data.index={index}", "width=4")
    assert edge_train(["localiser", "-c", f"{configs}/localiser.yaml", "-o", f"{runs}/localiser", *small]) == 0
    cut = with_sets(*SIZE, *SHORT, *TINY, f"data.index={discs}/index.csv", f"data.cut_to_mask={runs}/localiser")
    own = with_sets("one_per_category=false", "width=8", "dim=8", "optimiser.epochs=4", "optimiser.lr=5e-3", "scale=16")
    assert edge_train(["embedder", "-c", f"{configs}/embedder.yaml", "-o", f"{runs}/embedder", *cut, *own]) == 0
    bundle = ["--id", "discs", "--sequence", "1", "--out", f"{tmp_path}/bundle", "--no-probes", "--precision", "fp32"]
    data = ["--index", f"{discs}/index.csv", "--gallery-splits", "train", "--allow-degraded", "embedder.named"]
    models = ["--localiser", f"{runs}/localiser", "--embedder", f"{runs}/embedder", "--outline", "iou_only"]
    assert edge_quantize(["pack", *bundle, *data, *models]) == 0
    manifest = json.loads((tmp_path / "bundle/bundle.json").read_text())
    assert manifest["embedders"][0]["outline"] == {"disc": {"mode": "iou_only", "weight": 1.0}}
    assert manifest["evaluation"]["embedder-0"]["outline"]["disc"]["forced"] is True
    gallery = ["-o", f"{tmp_path}/gallery", "--split", "train"]
    assert edge_train(["embed", "--bundle", f"{tmp_path}/bundle", "--data", f"{discs}/index.csv", *gallery]) == 0
    capsys.readouterr()
    asked = ["recognise", f"{discs}/white-9.png", "--bundle", f"{tmp_path}/bundle", "--gallery", f"{tmp_path}/gallery"]
    assert edge([*asked, "--json"]) == 0
    assert "disc" in capsys.readouterr().out
