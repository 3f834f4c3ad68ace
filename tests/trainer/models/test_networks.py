"""Networks, their cards and their files."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from edge.errors import TrainError
from edge.finder_shape import FinderShape
from edge.inference.postprocess import decode_ltrb
from edge.manifest.embedder import Head
from edge.manifest.model import Preprocess
from trainer.models.backbone import create_trunk
from trainer.models.networks import ModelCard, build_model, freeze_parts, load_model, pool_grid, save_model
from trainer.recipe_parts import Backbone

SMALL = "mobilenetv4_conv_small_050"


def card(kind: str, **changes) -> ModelCard:
    fields = {
        "detector": {"labels": ["object"], "strides": [8, 16]},
        "classifier": {"labels": ["a", "b", "c"], "strides": [16]},
        "embedder": {
            "categories": ["a"],
            "heads": [Head(name="class", dim=8), Head(name="outline", dim=4)],
            "strides": [16],
        },
        "finder": {
            "finder": FinderShape(query_px=[32]),
            "strides": [4, 8, 16],
            "channels": 8,
            "guide": 4,
        },
    }[kind]
    spec = Preprocess(width=96, height=64, mean=(0.5, 0.4, 0.3), std=(0.2, 0.2, 0.2))
    return ModelCard(kind=kind, backbone=SMALL, preprocess=spec, **{"width": 16} | fields | changes)


@pytest.mark.parametrize("kind", ["detector", "classifier", "embedder"])
def test_saved_and_loaded_model_gives_the_same_output(tmp_path, kind):
    torch.manual_seed(1)
    made = card(kind, grid=2)
    module = build_model(made).eval()
    save_model(tmp_path, module, made)
    loaded, found = load_model(tmp_path)
    x = torch.rand(2, 3, 64, 96)
    assert made == found
    assert not loaded.training
    with torch.no_grad():
        expected, actual = module(x), loaded(x)
    for one, other in zip(*((v if isinstance(v, list) else [v]) for v in (expected, actual)), strict=True):
        assert torch.equal(one, other)


def test_card_survives_json():
    made = card("embedder", metrics={"recall_1": 0.5}, data={"train": 3}, recipe={"kind": "embedder"})
    assert made == ModelCard.model_validate_json(made.model_dump_json())


def test_detector_maps_decode_on_the_device():
    maps = build_model(card("detector")).eval()(torch.rand(1, 3, 64, 96))
    assert [tuple(level.shape) for level in maps] == [(1, 5, 8, 12), (1, 5, 4, 6)]
    assert all((level[:, :4] >= 0).all() for level in maps)
    boxes, scores, _ = decode_ltrb([level.detach().numpy() for level in maps], [8, 16], 0.001)
    assert len(boxes) == len(scores) == 8 * 12 + 4 * 6


def test_joint_vector_is_the_heads_in_order_with_equal_norm():
    module = build_model(card("embedder")).eval()
    x = torch.rand(3, 3, 64, 96)
    joint, parts = module(x), module.parts(x)
    assert list(parts) == ["class", "outline"]
    torch.testing.assert_close(joint.norm(dim=1), torch.ones(3))
    torch.testing.assert_close(joint[:, :8], parts["class"] / np.sqrt(2))


def test_sum_of_heads_is_one_part_of_unit_length():
    made = card("embedder", joint="sum", heads=[Head(name="class", dim=8), Head(name="outline", dim=8)])
    module = build_model(made).eval()
    x = torch.rand(3, 3, 64, 96)
    parts = module.parts(x)
    torch.testing.assert_close(module(x), torch.nn.functional.normalize(parts["class"] + parts["outline"], dim=1))
    assert made.vector_parts == [Head(name="sum", dim=8)]
    assert card("embedder").vector_parts == card("embedder").heads


def test_max_average_pool_sees_the_maximum_of_each_channel():
    made = card("embedder", width=0, strides=[16], heads=[Head(name="class", dim=8)], pool="max_average")
    module = build_model(made).eval()
    x = torch.rand(2, 3, 64, 96)
    feature = module.trunk(x)[0]
    pooled = torch.cat([feature.mean(dim=(2, 3)), feature.amax(dim=(2, 3))], dim=1)
    expected = torch.nn.functional.normalize(module.heads["class_head"].project(pooled), dim=1)
    torch.testing.assert_close(module(x), expected)


def test_grey_network_ignores_colour():
    made = card("classifier", grey=True)
    module = build_model(made).eval()
    pixels = torch.rand(2, 3, 64, 96)
    luma = (pixels * torch.tensor([0.299, 0.587, 0.114])[:, None, None]).sum(dim=1, keepdim=True).expand(-1, 3, -1, -1)
    mean, std = (torch.tensor(v)[:, None, None] for v in (made.preprocess.mean, made.preprocess.std))
    coloured, grey = ((p - mean) / std for p in (pixels, luma))
    torch.testing.assert_close(module.trunk.before(coloured), grey, atol=1e-5, rtol=0)
    torch.testing.assert_close(module(coloured), module(grey), atol=1e-4, rtol=0)
    plain = build_model(card("classifier"))
    assert plain.state_dict().keys() == module.state_dict().keys()  # so that weights serve both


def test_published_decision_module_has_two_hidden_layers():
    module = build_model(card("classifier", width=1024, further_widths=[512], dropout=0.5))
    shapes = [getattr(layer, "out_features", type(layer).__name__) for layer in module.decision]
    assert shapes == [1024, "ReLU", "Dropout", 512, "ReLU", 3]
    assert module.decision[2].p == 0.5


def test_head_of_width_0_sees_the_pooled_trunk():
    module = build_model(card("embedder", width=0, strides=[], heads=[Head(name="class", dim=8)])).eval()
    assert not [name for name, _ in module.heads.named_parameters() if "block" in name]
    x = torch.rand(2, 3, 64, 96)
    project = module.heads["class_head"].project
    expected = torch.nn.functional.normalize(project(module.trunk(x)[0].mean(dim=(2, 3))), dim=1)
    torch.testing.assert_close(module(x), expected)


def test_pool_grid_averages_cells_that_may_overlap():
    feature = torch.arange(36.0).reshape(1, 1, 6, 6)
    expected = torch.nn.functional.adaptive_avg_pool2d(feature, 3).flatten(1)
    torch.testing.assert_close(pool_grid(feature, 3), expected)
    assert pool_grid(torch.rand(2, 4, 7, 5), 3).shape == (2, 36)
    torch.testing.assert_close(pool_grid(feature, 1), feature.mean(dim=(2, 3)))


@pytest.mark.parametrize(
    ("name", "options"),
    [(SMALL, {}), ("mobilenetv4_conv_small", {}), ("mobilenetv2_100", {"output_stride": 16, "pad_type": ""})],
)
def test_trunk_at_stride_16_maps_a_96_px_crop_to_six_cells(name, options):
    trunk = create_trunk(name, [16], options=options).eval()
    assert (1, trunk.channels[0], 6, 6) == tuple(trunk(torch.rand(1, 3, 96, 96))[0].shape)


def test_cut_trunk_has_no_unused_blocks():
    count = {tuple(s): sum(p.numel() for p in create_trunk(SMALL, s).parameters()) for s in ([16], [32])}
    assert count[(16,)] < count[(32,)] / 3


def test_whole_trunk_ends_in_the_widening_convolution():
    whole, cut = (create_trunk("mobilenetv2_050", strides).eval() for strides in (None, [32]))
    assert (whole.channels, whole.strides, cut.channels) == ([1280], [32], [160])
    assert whole(torch.rand(1, 3, 64, 96))[0].shape == (1, 1280, 2, 3)


def test_frozen_stages_keep_weights_and_statistics():
    trunk = create_trunk("mobilenetv2_050")
    before = {key: value.clone() for key, value in trunk.state_dict().items()}
    trunk.train()
    for part in trunk.freeze(2):
        part.eval()
    optimiser = torch.optim.SGD([p for p in trunk.parameters() if p.requires_grad], 1.0)
    trunk(torch.rand(2, 3, 64, 64))[0].square().mean().backward()
    optimiser.step()
    changed = {key for key, value in trunk.state_dict().items() if not torch.equal(value, before[key])}
    assert not [key for key in changed if key.startswith(("network.conv_stem", "network.bn1", "network.blocks.0."))]
    assert {"network.blocks.1.0.conv_pw.weight", "network.blocks.1.0.bn1.running_mean"} <= changed


@pytest.mark.parametrize(("name", "stages"), [("mobilenetv2_050", 9), ("resnet18", 1)])
def test_freezing_missing_stages_is_an_error(name, stages):
    with pytest.raises(TrainError, match=f"frozen_stages is {stages}"):
        create_trunk(name).freeze(stages)


def test_weights_file_is_loaded_strictly(tmp_path):
    from trainer.models.timm_library import timm

    whole = timm.create_model(SMALL, num_classes=10)
    state = {key: torch.full_like(value, 0.25) for key, value in whole.state_dict().items()}
    save_file(state, tmp_path / "fits.safetensors")
    trunk = create_trunk(SMALL, [16], str(tmp_path / "fits.safetensors"))
    assert (trunk.network.conv_stem.weight == 0.25).all()
    state.pop("conv_stem.weight")
    save_file(state | {"surplus.weight": torch.zeros(1)}, tmp_path / "other.safetensors")
    with pytest.raises(TrainError, match=r"missing \['conv_stem.weight'\].*unexpected \['surplus.weight'\]"):
        create_trunk(SMALL, [16], str(tmp_path / "other.safetensors"))
    with pytest.raises(TrainError, match=r"absent.safetensors: cannot read weights"):
        create_trunk(SMALL, [16], str(tmp_path / "absent.safetensors"))


def test_unknown_backbone_or_stride_is_an_error():
    with pytest.raises(TrainError, match="'no_such_net'"):
        create_trunk("no_such_net")
    with pytest.raises(TrainError, match=r"has strides \[2, 4, 8, 16, 32\]; backbone.strides \[64\]"):
        create_trunk(SMALL, [64])


def test_load_rejects_weights_of_another_card(tmp_path):
    save_model(tmp_path, build_model(card("classifier")), card("classifier", labels=["a", "b"]))
    with pytest.raises(TrainError, match=r"does not fit model.json.*decision"):
        load_model(tmp_path)


def test_retired_card_keys_are_ignored_except_in_a_finder(tmp_path):
    save_model(tmp_path, build_model(card("classifier"), "none"), card("classifier"))
    path = tmp_path / "model.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"map_threshold": 0.5}))
    assert load_model(tmp_path)[1] == card("classifier")
    save_model(tmp_path, build_model(card("finder"), "none"), card("finder"))
    path.write_text(json.dumps(json.loads(path.read_text()) | {"map_threshold": 0.5}))
    with pytest.raises(TrainError, match=r"model.json: map_threshold"):
        load_model(tmp_path)


def test_load_rejects_damaged_card_and_missing_files(tmp_path):
    with pytest.raises(TrainError, match=r"model.json: cannot read"):
        load_model(tmp_path)
    save_model(tmp_path, build_model(card("classifier")), card("classifier"))
    tree = json.loads((tmp_path / "model.json").read_text())
    (tmp_path / "model.json").write_text(json.dumps(tree | {"surprise": 1}))
    with pytest.raises(TrainError, match=r"model.json: surprise"):
        load_model(tmp_path)
    (tmp_path / "model.json").write_text(json.dumps(tree))
    (tmp_path / "model.safetensors").write_bytes(b"not weights")
    with pytest.raises(TrainError, match=r"model.safetensors: cannot read weights"):
        load_model(tmp_path)


@pytest.mark.parametrize(("kind", "changes"), [("detector", {}), ("finder", {}), ("finder", {"shared_trunk": False})])
def test_freeze_bn_freezes_fresh_heads_too(kind, changes):
    """The new batch norms of a finder are in its features, its conversion, and its second trunk if it has one."""
    model = build_model(card(kind, **changes)).train()
    for part in freeze_parts(model, Backbone(name=SMALL, freeze_bn=True)):
        part.eval()
    norms = {name: part for name, part in model.named_modules() if isinstance(part, torch.nn.BatchNorm2d)}
    assert not [name for name, norm in norms.items() if norm.training]
    fresh = {name.split(".")[0] for name in norms if "trunk" not in name}
    two = {"represent_query"} if changes else set()
    assert fresh == {"detector": {"lateral", "smooth", "tower"}, "finder": {"represent", "conversion"} | two}[kind]


def test_finder_freezes_the_stages_of_both_trunks():
    model = build_model(card("finder", shared_trunk=False))
    freeze_parts(model, Backbone(name=SMALL, frozen_stages=1))
    still = {name for name, parameter in model.named_parameters() if not parameter.requires_grad}
    assert {name.split(".")[0] for name in still} == {"represent", "represent_query"}
    assert all("conv_stem" in name or "bn1" in name for name in still)
