r"""The tracker beside ByteTrack, SORT, OC-SORT, C-BIoU and norfair, and the time of 64 tracked objects.

    git worktree add /tmp/before COMMIT && ln -s "$PWD/.venv" /tmp/before/.venv
    python -m pip install --no-deps --target /tmp/peers trackers==2.6.1 supervision==0.31.2 norfair==2.3.0 \
        defusedxml 'pydeprecate<0.14' 'filterpy<2' rich tqdm requests urllib3 idna certifi charset-normalizer \
        markdown-it-py mdurl pygments av
    python benchmarks/trackers.py [--before /tmp/before] [--peers /tmp/peers] [--rounds 5]

Peers: `trackers` (Apache 2.0), `supervision` (MIT), norfair (BSD 3-clause). They run with their defaults, except that a
track may start from a score of 0.5 and counts from its second detection, as here, and is kept for a second.

- Streams: the demo's detector on ten synthetic streams, rendered at 25 frames a second; at 5, every fifth frame. CLEAR
  MOT (Bernardin and Stiefelhagen 2008; IoU 0.5, earlier pairs are kept) and IDF1 (Ristani et al. 2016).
- Boxes: that move by chance, with jitter, missed and false detections; milliseconds of processor time per frame.
- Frame: tracker and scheduler for objects that are due while the look budget of 6 a second is spent.

Detections are made once, into runs/trackers/. Checkouts and peers take turns. Writes benchmarks/results/trackers.json.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).parent.parent
CACHE = ROOT / "runs/trackers"
SEEDS, FPS, EVERY = range(50, 60), 25, {"25 fps": 1, "5 fps": 5}
OBJECTS, SECONDS, GAP_S = (3, 16, 64, 256), 3, 1.0
FRAME_OBJECTS = (16, 64)
Update = Callable[[Any, Any, float], tuple[list[int], list[Any]]]  # boxes, scores, time -> ids, boxes


def main() -> None:
    """Measure all trackers in turn and write the report."""
    from benchmarks import rig

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--before", type=Path, help="another checkout to measure beside this one")
    parser.add_argument("--peers", type=Path, help="folder with the peers; default: none is measured")
    parser.add_argument("--rounds", type=int, default=5, help="runs of each; default: %(default)s")
    arguments = parser.parse_args()
    for seed in SEEDS:
        detect(seed)
    children = {"before": arguments.before.resolve()} if arguments.before else {}
    children |= {"finesight": ROOT}
    children |= dict.fromkeys(("bytetrack", "sort", "oc-sort", "c-biou", "norfair"), ROOT) if arguments.peers else {}
    found: dict[str, list[dict[str, Any]]] = {name: [] for name in children}
    for turn in range(arguments.rounds):
        for name, checkout in children.items():
            paths = [str(checkout), *([str(arguments.peers)] if arguments.peers else [])]
            command = [sys.executable, "-W", "ignore", __file__, "child", name, *(["--scores"] if turn == 0 else [])]
            environment = os.environ | {"PYTHONPATH": os.pathsep.join(paths), "OPENBLAS_NUM_THREADS": "1"}
            done = subprocess.run(command, cwd=checkout, env=environment, stdout=subprocess.PIPE, check=True)
            found[name].append(json.loads(done.stdout))
    report: dict[str, Any] = {}
    for name, rounds in found.items():
        times = {key: [one["ms"][key] for one in rounds] for key in rounds[0]["ms"]}
        report[name] = rounds[0]["scores"] | {"ms": {key: round(statistics.median(v), 3) for key, v in times.items()}}
        print(name, json.dumps(report[name]))
    rig.write_report(report, ROOT / "benchmarks/results/trackers.json")


def detect(seed: int) -> None:
    """Render a stream and run the demo's detector on it, once."""
    from edge.build import load_models
    from edge.config.yaml_file import load_config
    from edge.telemetry.timing import Timings
    from trainer.synthetic.items import catalogue
    from trainer.synthetic.stream import stream

    path = CACHE / f"{seed}-{FPS}.json"
    if path.is_file():
        return
    CACHE.mkdir(parents=True, exist_ok=True)
    config = load_config(ROOT / "configs/demo.yaml", {})
    detector = load_models(ROOT / "demo/bundle", ROOT / "demo/gallery", config.engine).stages.detector
    frames = []
    for frame in stream(seed, catalogue(), fps=FPS):
        (found,) = detector.detect([frame.image_rgb], Timings())
        truth = [[one.object_id, *one.box_px, one.visible_fraction] for one in frame.objects]
        frames.append({"truth": truth, "found": [[*one.box_px, one.score] for one in found]})
    path.write_text(json.dumps({"fps": FPS, "frames": frames}))


def child(name: str, *, scores: bool) -> None:
    """Measure one tracker and print the outcome."""
    import benchmarks.track_scores  # noqa: F401 - of this checkout; what follows comes from the measured one

    sys.path.insert(0, os.environ["PYTHONPATH"].split(os.pathsep)[0])
    make = ours if name in ("before", "finesight") else peer(name)
    report: dict[str, Any] = {"ms": {f"{n} boxes": boxes_ms(make, n) for n in OBJECTS}}
    if name in ("before", "finesight"):
        report["ms"] |= {f"frame with {n} objects": frame_ms(n) for n in FRAME_OBJECTS}
    if scores:
        report["scores"] = {rate: streams(make, every) for rate, every in EVERY.items()}
    print(json.dumps(report))


def ours(fps: float) -> Update:  # noqa: ARG001
    """Return the tracker of the checkout."""
    from edge.recognition.camera_tracks import CONFIRM_HITS
    from edge.recognition.tracker import BoxTracker
    from edge.types import Detection

    tracker, blank = BoxTracker(GAP_S), np.zeros((2, 2, 3), np.uint8)

    def update(boxes: Any, scores: Any, now_s: float) -> tuple[list[int], list[Any]]:
        found = [
            Detection(tuple(box), score, "object") for box, score in zip(boxes.tolist(), scores.tolist(), strict=True)
        ]
        seen = [one for one in tracker.update(blank, found, now_s).detected if one.hits >= CONFIRM_HITS]
        return [one.track_id for one in seen], [one.box_px for one in seen]

    return update


def peer(name: str) -> Callable[[float], Update]:
    """Return what makes a tracker of another project."""
    if name == "norfair":
        return norfair_tracker
    import supervision
    import trackers

    kind, thresholds = {
        "bytetrack": (trackers.ByteTrackTracker, ("track_activation_threshold", "high_conf_det_threshold")),
        "sort": (trackers.SORTTracker, ("track_activation_threshold",)),
        "oc-sort": (trackers.OCSORTTracker, ("high_conf_det_threshold",)),
        "c-biou": (trackers.CBIoUTracker, ("track_activation_threshold", "high_conf_det_threshold")),
    }[name]

    def make(fps: float) -> Update:
        tracker = kind(frame_rate=fps, minimum_consecutive_frames=2, **dict.fromkeys(thresholds, 0.5))

        def update(boxes: Any, scores: Any, now_s: float) -> tuple[list[int], list[Any]]:  # noqa: ARG001
            classes = np.zeros(len(boxes), int)
            seen = tracker.update(supervision.Detections(xyxy=boxes, confidence=scores, class_id=classes))
            if seen.tracker_id is None:
                return [], []
            named = seen.tracker_id >= 0
            return seen.tracker_id[named].tolist(), seen.xyxy[named].tolist()

        return update

    return make


def norfair_tracker(fps: float) -> Update:
    """Return norfair's tracker, by IoU."""
    import norfair

    tracker = norfair.Tracker("iou", 0.8, hit_counter_max=max(2, round(GAP_S * fps)), initialization_delay=1)

    def update(boxes: Any, scores: Any, now_s: float) -> tuple[list[int], list[Any]]:  # noqa: ARG001
        found = [
            norfair.Detection(box.reshape(2, 2), np.array([score, score]))
            for box, score in zip(boxes, scores, strict=True)
        ]
        newest = {id(one) for one in found}
        seen = [one for one in tracker.update(found) if id(one.last_detection) in newest]
        return [one.id for one in seen], [one.last_detection.points.ravel().tolist() for one in seen]

    return update


def streams(make: Callable[[float], Update], every: int) -> dict[str, float]:
    """Return the scores on all streams: switches in total, the others as means."""
    from benchmarks.track_scores import score

    rows = []
    for seed in SEEDS:
        frames = json.loads((CACHE / f"{seed}-{FPS}.json").read_text())["frames"][::every]
        update, found = make(FPS / every), []
        for index, frame in enumerate(frames):
            seen = np.array(frame["found"], float).reshape(-1, 5)
            found.append(update(seen[:, :4], seen[:, 4], index * every / FPS))
        truth = [([o[0] for o in frame["truth"]], [o[1:5] for o in frame["truth"]]) for frame in frames]
        rows.append(score(truth, found))
    means = {key: round(statistics.mean(row[key] for row in rows), 3) for key in ("idf1", "mota")}
    return {
        "switches": sum(row["switches"] for row in rows),
        **means,
        "switches_by_seed": [r["switches"] for r in rows],
    }


def boxes_ms(make: Callable[[float], Update], count: int) -> float:
    """Return the median processor time of a frame with so many moving boxes."""
    update, spent = make(FPS), []
    for index, (boxes, scores) in enumerate(moving_boxes(count)):
        started = time.thread_time()
        update(boxes, scores, index / FPS)
        spent.append(1e3 * (time.thread_time() - started))
    return statistics.median(spent[FPS:])


def moving_boxes(count: int) -> list[tuple[Any, Any]]:
    """Return boxes and scores of each frame: objects in a square whose side grows with their number."""
    rng = np.random.default_rng(count)
    side = 170.0 * count**0.5
    centre, size = rng.uniform(0, side, (count, 2)), rng.uniform(50, 110, (count, 2))
    velocity = rng.normal(0, 80, (count, 2)) * rng.integers(0, 2, (count, 1))
    frames = []
    for _ in range(SECONDS * FPS):
        velocity *= np.where((centre < 0) & (velocity < 0) | (centre > side) & (velocity > 0), -1, 1)
        centre = centre + velocity / FPS
        seen = rng.random(count) > 0.1
        boxes = np.concatenate([centre - size / 2, centre + size / 2], axis=1)[seen] + rng.normal(0, 2, (seen.sum(), 4))
        false = rng.uniform(0, side, (rng.poisson(0.02 * count), 2))
        boxes = np.concatenate([boxes, np.concatenate([false - 40, false + 40], axis=1)])
        frames.append((boxes, rng.uniform(0.4, 0.95, len(boxes))))
    return frames


def frame_ms(count: int) -> float:
    """Return the median processor time of tracker and scheduler per frame while the budget is spent."""
    from edge.config.schema import CameraConfig, RecognitionConfig
    from edge.imaging import image
    from edge.recognition.camera_tracks import CameraTracks
    from edge.recognition.scheduler import EmbedPolicy, Scheduler
    from edge.telemetry.counters import Counters
    from edge.types import Detection, Frame

    image.set_threads(1)
    recognition = RecognitionConfig(looks_per_s=6)
    policy = EmbedPolicy(
        recognition.min_looks, recognition.max_looks, recognition.look_interval_s, recognition.recheck_s
    )
    now_ns = 0
    scheduler = Scheduler(recognition, policy, Counters(), lambda: now_ns)
    camera = CameraTracks(CameraConfig(source="file:///clip.mp4"), GAP_S)
    rng = np.random.default_rng(count)
    picture = rng.integers(0, 255, (720, 1280, 3), np.uint8)
    columns = -(-count // 6)
    corner = np.array([[40 + 1180 / columns * (i // 6), 30 + 112 * (i % 6)] for i in range(count)])
    spent = []
    for index in range(SECONDS * FPS):
        now_ns = round(index / FPS * 1e9)
        jitter = corner + rng.normal(0, 1, corner.shape)
        found = [Detection((x, y, x + 90, y + 90), 0.9, "object") for x, y in jitter.tolist()]
        frame = Frame("shelf", index, picture, now_ns, 0.0, "file", index / FPS)
        started = time.thread_time()
        update = camera.advance(frame, found)
        chosen = scheduler.select(camera, frame, update.detected)
        spent.append(1e3 * (time.thread_time() - started))
        for one in chosen:
            one.features.count_embedding(one.track.box_px, index / FPS)
    return statistics.median(spent[FPS:])


if __name__ == "__main__":
    sys.path[0] = str(ROOT)  # not this folder: a peer has the name of this file
    if sys.argv[1:2] == ["child"]:
        child(sys.argv[2], scores="--scores" in sys.argv)
    else:
        main()
