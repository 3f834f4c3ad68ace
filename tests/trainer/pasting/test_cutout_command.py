"""Cut-outs: alpha refined along a rough mask's edge, and the background removed."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
import torch

from edge.errors import TrainError
from edge.imaging.image import decode_mask, encode_image, read_image
from edge.manifest.model import Preprocess
from trainer.cli import main
from trainer.models.networks import ModelCard, build_model, save_model
from trainer.pasting.cutout_command import matted_cutout, on_white
from trainer.pasting.matting import make_trimap, refine_alpha

RED, GREEN = np.array((210, 40, 30)), np.array((40, 150, 60))


def soft_disc(side: int = 72) -> tuple[np.ndarray, np.ndarray]:
    """A red disc with a soft edge before green, and its true share of each pixel."""
    y, x = np.mgrid[:side, :side]
    share = np.clip((24.0 - np.hypot(x - side / 2, y - side / 2)) / 4.0 + 0.5, 0.0, 1.0)
    mixed = share[..., None] * RED + (1 - share[..., None]) * GREEN
    return np.rint(mixed).astype(np.uint8), share


def rough(share: np.ndarray) -> np.ndarray:
    """A mask that is two pixels off to one side."""
    return np.roll((share >= 0.5).astype(np.uint8) * 255, 2, axis=1)


def test_trimap_is_unknown_only_along_the_edge():
    mask = np.zeros((20, 20), np.uint8)
    mask[:, :10] = 255
    trimap = make_trimap(mask, 2)
    assert trimap[10].tolist() == [1.0] * 8 + [0.5] * 4 + [0.0] * 8


def test_refined_alpha_is_closer_to_the_truth_than_the_mask():
    picture, share = soft_disc()
    alpha = refine_alpha(picture, rough(share), 6) / 255.0
    assert np.abs(alpha - share).mean() < 0.3 * np.abs(rough(share) / 255.0 - share).mean()


def test_cut_out_on_white_shows_no_background():
    picture, share = soft_disc()
    cutout = matted_cutout(picture, rough(share))
    assert cutout.shape == (72, 72, 4)
    white = on_white(cutout)
    assert (white[0, 0] == 255).all()
    edge = (share > 0.3) & (share < 0.7)
    expected = share[edge][:, None] * RED + (1 - share[edge][:, None]) * 255
    assert np.abs(white[edge] - expected).mean() < 25  # green shining through would make it 60 darker


def test_mask_without_background_is_rejected():
    picture, _ = soft_disc()
    with pytest.raises(TrainError, match="100% certain object and 0% certain background"):
        refine_alpha(picture, np.full((72, 72), 255, np.uint8), 3)


def localiser_of_red(folder, bias: float) -> None:
    """A localiser whose every weight is zero but for a path from red to the fused mask."""
    card = ModelCard(kind="localiser", backbone="", preprocess=Preprocess(width=64, height=64), strides=[2], width=4)
    network = build_model(card)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.zero_()
        stem, entered = network.stem, network.encoder[0].enter
        for conv, norm in ((stem[0], stem[1]), (entered[0], entered[1])):
            norm.weight.fill_(1.0)
            conv.weight[0, 0, 1, 1] = 1.0
        decoded = network.decoder[0].enter
        decoded[1].weight.fill_(1.0)
        decoded[0].weight[0, network.decoder[0].enter[0].in_channels - 4, 1, 1] = 1.0
        network.sides[0].weight[0, 0, 1, 1] = 1.0
        network.fuse.weight[0, 0] = 40.0
        network.fuse.bias.fill_(bias)
    save_model(folder, network, card)


def test_cutout_command_writes_cut_outs(tmp_path, capsys):
    picture, share = soft_disc()
    for name in ("a.jpg", "b.jpg"):
        (tmp_path / name).write_bytes(encode_image(picture, ".jpg", 98))
    (tmp_path / "bad.jpg").write_bytes(b"")
    localiser_of_red(tmp_path / "run", -20.0)
    pictures = [str(tmp_path / name) for name in ("a.jpg", "b.jpg", "bad.jpg")]
    assert main(["cutout", "--localiser", str(tmp_path / "run"), "-o", str(tmp_path / "out"), *pictures]) == 0
    assert '"cut_out": 2' in (output := capsys.readouterr().out)
    assert "bad.jpg: empty" in output
    alpha = decode_mask((tmp_path / "out/a.png").read_bytes(), "a.png")
    assert np.abs(alpha / 255.0 - share).mean() < 0.05
    assert cv2.imread(str(tmp_path / "out/b.png"), cv2.IMREAD_UNCHANGED).shape == (72, 72, 4)
    assert (read_image(tmp_path / "out/a.white.jpg")[:4, :4] > 250).all()


def test_picture_without_an_object_is_reported(tmp_path, capsys):
    (tmp_path / "a.jpg").write_bytes(encode_image(soft_disc()[0], ".jpg"))
    localiser_of_red(tmp_path / "run", -80.0)
    assert main(["cutout", "--localiser", str(tmp_path / "run"), "-o", str(tmp_path), str(tmp_path / "a.jpg")]) == 0
    assert "mask is empty" in capsys.readouterr().out
