"""Export of every form of embedder and classifier: FP32 equals torch, and INT8 is close to it."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from edge.imaging.image import encode_image
from edge.inference.engine import open_engine
from edge.manifest.embedder import Head
from edge.manifest.model import Preprocess
from quantize.export import CameraInput, export_fp32
from quantize.forms.ort_u8 import measure_fusion
from quantize.forms.write_forms import quantize_network
from quantize.pictures import Sample
from trainer.models.networks import ClassifierWithDescriptor, ModelCard, build_model, load_model, save_model

TWO = [Head(name="class", dim=8), Head(name="outline", dim=8)]
FORMS = {
    "sum": {"joint": "sum"},
    "max_average, grey": {"pool": "max_average", "grid": 2, "grey": True},
    "feature itself": {"pool": "max_average", "width": 0, "projection": False, "heads": [Head(name="class", dim=96)]},
    "published": {"kind": "classifier", "labels": ["a", "b"], "further_widths": [8], "grey": True, "heads": []},
}


@pytest.mark.parametrize("form", FORMS)
def test_every_form_of_network_is_exported_and_quantised(tmp_path, form):
    torch.manual_seed(5)
    spec = Preprocess(width=64, height=64, mean=(128 / 255,) * 3, std=(0.5,) * 3)
    fields = {"kind": "embedder", "heads": TWO, "categories": ["a"], "width": 16} | FORMS[form]
    card = ModelCard(backbone="mobilenetv4_conv_small_050", preprocess=spec, strides=[16], **fields)
    module = build_model(card)
    with torch.no_grad():  # statistics and scores of some size
        module.train()(torch.randn(16, 3, 64, 64))
    save_model(tmp_path / "run", module, card)
    made = export_fp32(tmp_path / "run", tmp_path / "m.fp32.onnx")
    assert [head.name for head in made.heads] == (["sum"] if form == "sum" else [head.name for head in card.heads])
    rng = np.random.default_rng(0)
    pictures = []
    for i in range(12):
        picture = np.clip(rng.normal(rng.uniform(60, 190, 3), 40, (64, 64, 3)), 0, 255).astype(np.uint8)
        pictures.append(Sample(tmp_path / f"{i}.png", f"{i}.png", "train", "box", "red"))
        pictures[-1].path.write_bytes(encode_image(picture, ".png"))
    batch = rng.integers(0, 256, (3, 64, 64, 3), dtype=np.uint8)
    with torch.no_grad():
        expected = CameraInput(load_model(tmp_path / "run")[0], spec).eval()(torch.from_numpy(batch)).numpy()
    found = open_engine(tmp_path / "m.fp32.onnx").run(batch)[0]
    np.testing.assert_allclose(found, expected, atol=1e-3 * np.abs(expected).max())
    quantize_network(
        made,
        tmp_path / "m.fp32.onnx",
        pictures,
        tmp_path / "m.int8.onnx",
        saturates=False,
        progress=lambda them, _: them,
    )
    fusion = measure_fusion(tmp_path / "m.int8.onnx")
    # Without a last layer, the sums that end the last blocks are the tail, which stays in FP32.
    assert fusion.int8 > 0
    assert (fusion.fp32 > 0) == (fusion.fp32 < fusion.excluded) == (form == "feature itself")
    close = open_engine(tmp_path / "m.int8.onnx").run(batch)[0]
    if card.kind == "embedder":
        assert (close * expected).sum(axis=1).min() > 0.9


def test_descriptor_is_the_second_output(tmp_path):
    torch.manual_seed(5)
    spec = Preprocess(width=64, height=64, mean=(0.5,) * 3, std=(0.5,) * 3)
    card = ModelCard(
        kind="classifier", backbone="mobilenetv4_conv_small_050", preprocess=spec, strides=[16], width=16,
        labels=["a", "b"], descriptor_dim=6,
    )  # fmt: skip
    module = build_model(card).eval()
    module.fit_descriptor(torch.randn(20, module.trunk.channels[-1]))
    save_model(tmp_path / "run", module, card)
    made = export_fp32(tmp_path / "run", tmp_path / "m.fp32.onnx")
    assert (made.output_names, made.descriptor_dim) == (["logits", "descriptor"], 6)
    batch = np.random.default_rng(0).integers(0, 256, (3, 64, 64, 3), dtype=np.uint8)
    with torch.no_grad():
        expected = CameraInput(ClassifierWithDescriptor(module), spec).eval()(torch.from_numpy(batch))
    for found, wanted in zip(open_engine(tmp_path / "m.fp32.onnx").run(batch), expected, strict=True):
        np.testing.assert_allclose(found, wanted, atol=1e-3 * float(wanted.abs().max()))
