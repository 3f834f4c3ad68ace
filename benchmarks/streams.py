"""Synthetic streams that nobody looked at while rules were set, through a bundle: which objects are identified.

    python benchmarks/streams.py [ASSETS] [--seeds 51 52 53 54 55 56 57 58 59 60]      # default: demo/

Streams are rendered once into runs/streams/. Every frame is recognised, in the stream's own time, with the rules of
configs/demo.yaml; broker and outbox are left out (`edge demo` has them). Writes benchmarks/results/streams.json.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections import Counter
from datetime import date
from pathlib import Path

ROOT = Path(__file__).parent.parent
UNSEEN = list(range(51, 61))  # not looked at while rules and recipes were set; 31 to 35 and 41 to 50 were
sys.path.insert(0, str(ROOT))


def main() -> None:
    """Render, recognise, score, write."""
    from benchmarks.grocery import interval, machine

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("assets", type=Path, nargs="?", default=ROOT / "demo")
    parser.add_argument("--seeds", type=int, nargs="+", default=UNSEEN)
    arguments = parser.parse_args()
    report: dict[str, object] = {}
    right: list[int] = []
    spent = Counter[str]()
    for seed in arguments.seeds:
        verdicts, cost = recognise(arguments.assets, rendered(seed))
        spent.update(cost)
        counts = Counter(verdict for verdict, _ in verdicts.values())
        report[f"seed_{seed}"] = {"objects": len(verdicts), **counts}
        right += [int(verdict == "right") for verdict, _ in verdicts.values()]
        print(f"seed {seed}: {dict(counts)}")
        for verdict, what in verdicts.values():
            if verdict != "right":
                print(f"    {verdict}: {what}")
    report |= spent
    report["right_share"], report["right_95"] = sum(right) / len(right), interval(right)
    print(f"{sum(right)} of {len(right)} right, {report['right_share']:.1%} {report['right_95']}")
    report |= {"date": date.today().isoformat(), "machine": machine()}  # noqa: DTZ011
    if arguments.assets == ROOT / "demo" and arguments.seeds == UNSEEN:
        (ROOT / "benchmarks/results/streams.json").write_text(json.dumps(report, indent=1) + "\n")


def rendered(seed: int) -> Path:
    """The stream of a seed, rendered where it is not there yet."""
    video = ROOT / f"runs/streams/{seed}/stream.mp4"
    if not video.with_suffix(".json").is_file():
        video.parent.mkdir(parents=True, exist_ok=True)
        command = [ROOT / ".venv/bin/edge-train", "synthesize", "--stream", "-o", video, "--seed", str(seed)]
        subprocess.run([str(part) for part in command], check=True)
    return video


def recognise(assets: Path, video: Path) -> tuple[dict[int, tuple[str, str]], dict[str, int]]:
    """For each well shown object the verdict, and what it was taken for; sights of objects, and looks at them."""
    from edge.build import load_models
    from edge.capture.frame_source import CaptureOptions, EndOfStream
    from edge.capture.open_source import open_source
    from edge.config.camera_url import parse_source
    from edge.config.yaml_file import load_config
    from edge.demo.score import last_answers, read_ground_truth, score
    from edge.messaging.payload import event_payload
    from edge.recognition.pipeline import Pipeline
    from edge.telemetry.metrics import Counters
    from edge.types import Frame

    config = load_config(ROOT / "configs/demo.yaml", {})
    camera = next(iter(config.cameras.values()))
    models = load_models(assets / "bundle", assets / "gallery", config.engine)
    shown_ns = [0]  # the stream's own time: looks are budgeted by it
    pipeline = Pipeline(models, {"stream": camera}, config.recognition, Counters(), lambda: shown_ns[0])
    door = open_source(parse_source(f"file://{video.resolve()}"), "auto", CaptureOptions())
    payloads, looks = [], 0
    try:
        for index in range(10**9):
            picture = door.read(5.0)
            shown_ns[0] = round(picture.pts_s * 1e9)
            frame = Frame("stream", index, picture.image_rgb, picture.arrived_ns, 0.0, "file", picture.pts_s)
            done = pipeline.process(frame)
            looks += done.embedded
            payloads += [json.loads(event_payload(event, "bench", "bench", "b", index)) for event in done.events]
    except EndOfStream:
        door.close()
    truth = read_ground_truth(video.with_suffix(".json"))
    told = last_answers(payloads)
    found = score(truth, told)
    answers = {found.object_of_track.get(answer.track_id): answer for answer in told}
    verdicts = {
        number: (verdict, f"{truth.objects[number].item_id}, told {getattr(answers.get(number), 'item_id', None)}")
        for number, verdict in found.outcomes.items()
    }
    return verdicts, {"sights": sum(len(boxes) for boxes in truth.frames), "looks": looks}


if __name__ == "__main__":
    main()
