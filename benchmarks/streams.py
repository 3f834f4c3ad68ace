"""Share of objects identified in synthetic test streams that were not used to set rules or recipes.

    python benchmarks/streams.py [ASSETS] [--seeds 51 52 53 54 55 56 57 58 59 60]      # default: demo/

Streams are rendered once into runs/streams/. Every frame is processed, in stream time, with the rules of
configs/demo.yaml, without broker and outbox (`edge demo` has them). Writes benchmarks/results/streams.json.
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
UNSEEN = list(range(51, 61))  # not used to set rules and recipes; 31 to 35 and 41 to 50 were
sys.path.insert(0, str(ROOT))


def main() -> None:
    """Render the streams, recognise, score, write the report."""
    from benchmarks.grocery import interval, machine

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "assets", type=Path, nargs="?", default=ROOT / "demo", help="folder with bundle/ and gallery/; default: demo/"
    )
    parser.add_argument("--seeds", type=int, nargs="+", default=UNSEEN, help="seeds of the streams; default: 51 to 60")
    arguments = parser.parse_args()
    report: dict[str, object] = {}
    correct: list[int] = []
    spent = Counter[str]()
    for seed in arguments.seeds:
        outcomes, cost = recognise(arguments.assets, rendered(seed))
        spent.update(cost)
        counts = Counter(outcome for outcome, _ in outcomes.values())
        report[f"seed_{seed}"] = {"objects": len(outcomes), **counts}
        correct += [int(outcome == "right") for outcome, _ in outcomes.values()]
        print(f"seed {seed}: {dict(counts)}")
        for outcome, what in outcomes.values():
            if outcome != "right":
                print(f"    {outcome}: {what}")
    report |= spent
    report["right_share"], report["right_95"] = sum(correct) / len(correct), interval(correct)
    print(f"{sum(correct)} of {len(correct)} correct, {report['right_share']:.1%} {report['right_95']}")
    report |= {"date": date.today().isoformat(), "machine": machine()}  # noqa: DTZ011
    if arguments.assets == ROOT / "demo" and arguments.seeds == UNSEEN:
        (ROOT / "benchmarks/results/streams.json").write_text(json.dumps(report, indent=1) + "\n")


def rendered(seed: int) -> Path:
    """Return the stream of a seed; render it if missing."""
    video = ROOT / f"runs/streams/{seed}/stream.mp4"
    if not video.with_suffix(".json").is_file():
        video.parent.mkdir(parents=True, exist_ok=True)
        command = [ROOT / ".venv/bin/edge-train", "synthesize", "--stream", "-o", video, "--seed", str(seed)]
        subprocess.run([str(part) for part in command], check=True)
    return video


def recognise(assets: Path, video: Path) -> tuple[dict[int, tuple[str, str]], dict[str, int]]:
    """Return outcome and prediction of each clearly visible object, and the numbers of true boxes and embeddings."""
    from edge.build import load_models
    from edge.capture.frame_source import CaptureOptions, EndOfStream
    from edge.capture.open_source import open_source
    from edge.config.camera_url import parse_source
    from edge.config.yaml_file import load_config
    from edge.demo.score import last_answers, read_ground_truth, score
    from edge.messaging.payload import event_payload
    from edge.recognition.pipeline import Pipeline
    from edge.telemetry.counters import Counters
    from edge.types import Frame

    config = load_config(ROOT / "configs/demo.yaml", {})
    camera = next(iter(config.cameras.values()))
    models = load_models(assets / "bundle", assets / "gallery", config.engine)
    shown_ns = [0]  # stream time, which the embedding budget uses
    pipeline = Pipeline(models, {"stream": camera}, config.recognition, Counters(), lambda: shown_ns[0])
    source = open_source(parse_source(f"file://{video.resolve()}"), "auto", CaptureOptions())
    payloads, embedded = [], 0
    try:
        for index in range(10**9):
            picture = source.read(5.0)
            shown_ns[0] = round(picture.pts_s * 1e9)
            frame = Frame("stream", index, picture.image_rgb, picture.arrived_ns, 0.0, "file", picture.pts_s)
            done = pipeline.process(frame)
            embedded += done.embedded
            payloads += [json.loads(event_payload(event, "bench", "bench", "b", index)) for event in done.events]
    except EndOfStream:
        source.close()
    truth = read_ground_truth(video.with_suffix(".json"))
    answers_of_tracks = last_answers(payloads)
    found = score(truth, answers_of_tracks)
    answers = {found.object_of_track.get(answer.track_id): answer for answer in answers_of_tracks}
    outcomes = {
        number: (outcome, f"{truth.objects[number].item_id}, predicted {getattr(answers.get(number), 'item_id', None)}")
        for number, outcome in found.outcomes.items()
    }
    return outcomes, {"sights": sum(len(boxes) for boxes in truth.frames), "looks": embedded}


if __name__ == "__main__":
    main()
