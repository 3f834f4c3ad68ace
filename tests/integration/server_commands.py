"""Runs every server-side command once, on small data, in one process: the libraries take longer to load than to run."""

from __future__ import annotations

import contextlib
import io
import json
import sys
from importlib import import_module
from pathlib import Path

# In this order: later commands use what earlier ones wrote. {} is the folder of it all
COMMANDS = {
    "edge-train synthesize": "-o {}/synthetic --scenes 2 --crops-per-item 0 --looks-per-item 0",
    "edge-train data": "{}/crops -o {}/card",
    "edge-train classifier": "-c {}/classifier.yaml -o {}/classifier",
    "edge-train embedder": "-c {}/embedder.yaml -o {}/embedder",
    "edge-train shrink": "{}/embedder --dim 4 -o {}/short",
    "edge-train detector": "-c {}/detector.yaml -o {}/detector",
    "edge-train crops": "--detector {}/detector --scenes {}/scenes/scenes.json -o {}/cropped",
    "edge-train localiser": "-c {}/localiser.yaml -o {}/localiser",
    "edge-train finder": "-c {}/finder.yaml -o {}/finder",
    "edge-train evaluate": "--classifier {}/classifier --embedder {}/embedder --data {}/crops --gallery train",
    "edge-train table": "cmc-categories --data {}/crops -o {}/table --methods mobilenetv4_conv_small_050 --seeds 0 "
    "--backbone mobilenetv4_conv_small_050 --weights none --pixels 32 --epochs 1",
    "edge-train label": "{}/scenes -o {}/labels --count 2",
    "edge-train cutout": "--localiser {}/localiser -o {}/cut {}/masks/0.png",
    "edge-train expand": "{}/scenes/scenes.json -o {}/expanded --scenes 2",
    "edge-train self-tune": "-c {}/detector.yaml --cutouts {}/scenes/scenes.json --images {}/scenes -o {}/tuned "
    "--rounds 1 --scenes 2",
    "edge-train find": "{}/query.png {}/scenes/0.png --model {}/finder -o {}/found",
    "edge-quantize export": "{}/classifier {}/c.onnx",
    "edge-quantize quantize": "{}/c.onnx {}/c8.onnx --index {}/crops/index.csv",
    "edge-quantize compare": "{}/c.onnx {}/c8.onnx --index {}/crops/index.csv --min-speedup 0.001",
    "edge-quantize pack": "--id x --sequence 1 --out {}/bundle --classifier {}/classifier --embedder {}/embedder "
    "--index {}/crops/index.csv --no-probes --keep-both --fallback-fp32",
    "edge-quantize report": "{}/bundle -o {}/report --index {}/crops/index.csv",
    "edge-quantize kit": "{}/bundle -o {}/kit --index {}/crops/index.csv",
    "edge-train embed": "--bundle {}/bundle --data {}/crops -o {}/gallery --parts {}/parts",
    "edge-train inbox": "{}/inbox -o {}/review --bundle {}/bundle --gallery {}/gallery",
    "edge-train seal": "{}/parts --bundle {}/bundle -o {}/sealed",
    "edge-train learn": "{}/photos -o {}/shop --weights {}/lcnet_035.safetensors --camera file:///counter.mp4",
}
_MODULES = {"edge-train": "trainer.cli", "edge-quantize": "quantize.cli"}


def prepare(folder: Path) -> None:
    """Write the data and recipes."""
    import torch
    import yaml
    from safetensors.torch import save_file

    from tests.learn.test_photos import shop
    from tests.trainer.inbox.inbox_samples import put, taught, unknown
    from tests.trainer.tasks.test_finder import HELD_OUT, finder_recipe
    from tests.trainer.toy import (
        classifier_recipe,
        detector_recipe,
        embedder_recipe,
        localiser_recipe,
        write_crops,
        write_masks,
        write_scenes,
    )
    from trainer.models.timm_library import timm

    torch.manual_seed(0)
    index, scenes = write_crops(folder / "crops"), write_scenes(folder / "scenes", 4)
    masks = write_masks(folder / "masks", 6)
    (folder / "query.png").write_bytes((folder / "masks/0.png").read_bytes())
    shop(folder / "photos", 6)
    put(folder / "inbox", "kiosk-1", taught(category=None))
    put(folder / "inbox", "cam-1", unknown(category=None))
    weights = timm.create_model("lcnet_035").state_dict()
    save_file({key: value.contiguous() for key, value in weights.items()}, folder / "lcnet_035.safetensors")
    recipes = {
        "classifier": classifier_recipe(index, 1),
        "embedder": embedder_recipe(index, 1, shorter_dims=[4]),
        "detector": detector_recipe(scenes, 1),
        "localiser": localiser_recipe(masks, 1),
        "finder": finder_recipe(1, world={"scenes": 3, "val_scenes": 1, "looks": 1, "held_out": HELD_OUT}),
    }
    for name, recipe in recipes.items():
        text = yaml.safe_dump(recipe.model_dump(mode="json", exclude_none=True))
        (folder / f"{name}.yaml").write_text(text, encoding="utf-8")


def run(folder: Path) -> dict[str, tuple[int, str]]:
    """Run each command; return its exit status and the end of what it printed."""
    results = {}
    for name, arguments in COMMANDS.items():
        program, verb = name.split()
        said = io.StringIO()
        with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
            status = import_module(_MODULES[program]).main([verb, *arguments.replace("{}", str(folder)).split()])
        results[name] = (status, said.getvalue()[-600:])
    return results


if __name__ == "__main__":
    prepare(Path(sys.argv[1]))
    print(json.dumps(run(Path(sys.argv[1]))))
