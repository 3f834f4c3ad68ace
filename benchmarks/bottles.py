"""YOLOX-nano, tracker and recognition on a real video of bottles that are put on a table and taken away.

    python benchmarks/bottles.py        # after benchmarks/reproduce_demo.sh, whose models it uses

Three bottles stand on the table. Between 7 and 36 s each is taken away and put back, one of them twice, so seven tracks
are correct. Classifier and embedders are those of the synthetic demo, so the correct answer is "unknown". Needs
../shared/data or $FINESIGHT_DATA. Writes benchmarks/results/bottles.json.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from datetime import date
from pathlib import Path

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))
BIN = ROOT / ".venv/bin"
COCO_BOTTLE, COCO_CLASSES = 39, 80


def main() -> None:
    """Pack a bundle, measure at full speed, then run in real time."""
    from benchmarks.grocery import machine, run

    data = Path(os.environ.get("FINESIGHT_DATA", ROOT / "../shared/data")).resolve()
    video = data / "video/bottle-detection.mp4"
    if not video.is_file():
        sys.exit(f"{video} is missing; set FINESIGHT_DATA to the folder that holds it")
    work, models = ROOT / "runs/bottles", ROOT / "runs/models"
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)
    labels = [f"coco-{i}" for i in range(COCO_CLASSES)]
    labels[COCO_BOTTLE] = "bottle"
    spec = {
        "kind": "detector",
        "output_names": ["output"],
        "preprocess": {"width": 416, "height": 416, "resize": "letterbox", "layout": "nchw", "dtype": "float32"},
        "decoder": "yolox",
        "strides": [8, 16, 32],
        "labels": labels,
        "keep_labels": ["bottle"],
        "score_threshold": 0.25,
        "iou_threshold": 0.5,
    }
    (work / "yolox.json").write_text(json.dumps(spec))
    embedders = [part for path in sorted(models.glob("embedder*.fp32.onnx")) for part in ("--embedder", path)]
    run(
        *(BIN / "edge-quantize", "pack", "--id", "bottles", "--sequence", "1", "--out", work / "bundle"),
        *("--detector-onnx", data / "weights/yolox_nano_coco_416.onnx", "--detector-spec", work / "yolox.json"),
        *("--classifier", models / "classifier.fp32.onnx", *embedders, "--index", ROOT / "runs/synthetic/index.csv"),
        *("--precision", "fp32", "--no-probes"),
    )
    bundle = ("--bundle", work / "bundle", "--gallery", ROOT / "demo/gallery")
    command = [BIN / "edge", "bench", "-c", ROOT / "configs/demo.yaml", "--source", video, *bundle, "--json"]
    report = {}
    for name, extra in ("640x360", []), ("1280x720", ["--resize", "1280x720"]):
        done = subprocess.run([str(part) for part in [*command, *extra]], cwd=ROOT, capture_output=True, check=True)
        report[f"full_speed_{name}"] = json.loads(done.stdout)
        report[f"full_speed_{name}"]["source"] = video.name
    report["real_time"] = real_time(work, video)
    report |= {"date": date.today().isoformat(), "machine": machine()}  # noqa: DTZ011
    print(json.dumps(report, indent=1))
    (ROOT / "benchmarks/results/bottles.json").write_text(json.dumps(report, indent=1) + "\n")


def real_time(work: Path, video: Path) -> dict[str, object]:
    """Run a device on the video in real time, and count the events that a subscriber receives."""
    from edge.bundle import slots
    from edge.bundle.install import install_bundle, install_gallery
    from edge.demo.subscriber import Subscriber
    from edge.messaging.settings import MqttSettings
    from tests.integration.mosquitto import Mosquitto

    state = work / "state"
    slot = install_bundle(work / "bundle", state)
    slots.activate(state, slot, install_gallery(ROOT / "demo/gallery", state))
    (work / "broker").mkdir()
    with Mosquitto(work / "broker") as broker:
        (work / "device.yaml").write_text(
            f"site: bench\ndevice: bottles\nstate_dir: {state}\nmqtt: {{host: 127.0.0.1, port: {broker.port}}}\n"
            f"cameras:\n  table: {{source: 'file://{video}'}}\n"
        )
        settings = MqttSettings(client_id="bottles-benchmark", host="127.0.0.1", port=broker.port)
        with Subscriber(settings, "finesight/bench/bottles/#") as subscriber:
            subprocess.run([BIN / "edge", "run", "-c", work / "device.yaml", "--until-end"], cwd=ROOT, check=True)
            received = [subscriber.messages.get() for _ in range(subscriber.messages.qsize())]
    events = [json.loads(m.payload) for m in received if m.topic.endswith("/events")]
    health = [json.loads(m.payload) for m in received if m.topic.endswith("/health")][-1]
    last = {event["track_id"]: event for event in events}
    return {
        "tracks": len({event["track_id"] for event in events if event["type"] == "new"}),
        "answers": {track: (e["match"] or {}).get("item") or e["reason"] for track, e in last.items()},
        "frames_recognised": health["counters"]['frames_recognised{camera="table"}'],
        "frames_superseded": health["counters"].get('frames_dropped{camera="table",reason="superseded"}', 0),
        "resident_mib": round(health["resident_bytes"] / 2**20),
    }


if __name__ == "__main__":
    main()
