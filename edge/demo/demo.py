"""Runs the demo: the shipped models on a synthetic camera, a broker, and a subscriber that receives the events."""

from __future__ import annotations

import json
import logging
import queue
import secrets
import shutil
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from edge.bundle import slots
from edge.bundle.install import install_bundle, install_gallery
from edge.bundle.prove import ProofOptions, prover
from edge.capture.frame_source import EndOfStream
from edge.capture.open_source import open_source
from edge.config.camera_url import parse_source
from edge.config.schema import DeviceConfig, MqttConfig
from edge.demo.score import GroundTruth, Score, TrackAnswer, last_answers, read_ground_truth, score
from edge.demo.subscriber import Subscriber
from edge.gallery.generation import Gallery
from edge.gallery.store import read_thumbnail
from edge.imaging import image
from edge.imaging.contact_sheet import Card, contact_sheet
from edge.messaging.settings import ReceivedMessage, mqtt_settings
from edge.runtime import Runtime
from edge.telemetry.health_report import resident_bytes
from edge.types import Image

log = logging.getLogger(__name__)

MIN_SHARE_RIGHT = 0.95
_MAX_SHEET_FRAMES = 3
_MAX_SHEET_CARDS = 36


def demo(config: DeviceConfig, assets: Path, sheet: Path) -> int:
    """Run the shipped stream from camera to subscriber, print and score the events, and draw a contact sheet.

    Returns:
        0 if at least 95 % of the objects were identified correctly and every event arrived, else 1.

    Raises:
        FinesightError: an asset is missing or damaged, or the broker cannot be started.
    """
    started_s = time.monotonic()
    # a separate device that every run creates afresh; other files in the configured folder stay
    config = config.model_copy(update={"state_dir": config.state_dir / "demo-device"})
    name, camera = next(iter(config.cameras.items()))
    source = parse_source(camera.source)
    truth = read_ground_truth(Path(source.location).with_suffix(".json"))
    _install_assets(config, assets)
    with _broker(config) as connected:
        settings = mqtt_settings(connected.mqtt or MqttConfig(), config.site, config.device)
        root = connected.mqtt.root if connected.mqtt else "finesight"
        topic = f"{root}/{config.site}/{config.device}/{name}/events"
        settings = replace(settings, client_id=f"finesight-demo-{secrets.token_hex(4)}")
        with Subscriber(settings, topic) as subscriber:
            payloads, runtime = _run_device(connected, subscriber, started_s)
    answers = last_answers(payloads)
    result = score(truth, answers)
    _draw_contact_sheet(sheet, source.location, config, truth, answers, result)
    return _print_summary(runtime, payloads, result, sheet)


def _install_assets(config: DeviceConfig, assets: Path) -> None:
    """Install and activate the shipped bundle and gallery, as `edge-sync pull` does."""
    shutil.rmtree(config.state_dir, ignore_errors=True)
    slot = install_bundle(assets / "bundle", config.state_dir)
    generation = install_gallery(assets / "gallery", config.state_dir)
    # without a choice of engines, which would take longer than the demo takes to start
    slots.activate(config.state_dir, slot, generation, prover(ProofOptions(config.engine.backend)))


@contextmanager
def _broker(config: DeviceConfig) -> Iterator[DeviceConfig]:
    """Yield the configuration with a broker: the configured one, or an embedded one."""
    with ExitStack() as stack:
        if config.mqtt is None:
            from edge.demo.broker import EmbeddedBroker

            broker = stack.enter_context(EmbeddedBroker())
            config = config.model_copy(update={"mqtt": MqttConfig(host=broker.host, port=broker.port)})
        yield config


def _run_device(config: DeviceConfig, subscriber: Subscriber, started_s: float) -> tuple[list[dict[str, Any]], Runtime]:
    """Run the device to the end of its stream, and print the events that the subscriber receives."""
    stop = threading.Event()
    printer = _Printer(subscriber.messages, started_s)
    with Runtime(config) as runtime:
        printer.start()
        runtime.run(stop, until_end=True)
    if errors := runtime.camera_errors():
        raise next(iter(errors.values()))
    return printer.finish(runtime.counters.total("events")), runtime


class _Printer(threading.Thread):
    """Prints each event as it arrives, and keeps it."""

    _ROW = "{:>6}  {:8} {:>5}  {:6}  {:8} {:28} {:>5}  {:>7}"

    def __init__(self, messages: queue.SimpleQueue[ReceivedMessage], started_s: float) -> None:
        super().__init__(name="printer", daemon=True)
        self._messages = messages
        self._started_s = started_s
        self._payloads: dict[str, dict[str, Any]] = {}
        self._done = threading.Event()
        self.first_match_s: float | None = None

    def run(self) -> None:
        """Print events until `finish` is called."""
        print(self._ROW.format("time", "camera", "track", "event", "category", "item", "score", "latency"))
        while not self._done.is_set():
            try:
                self._print_event(self._messages.get(timeout=0.1))
            except queue.Empty:
                continue

    def finish(self, expected: int, timeout_s: float = 5.0) -> list[dict[str, Any]]:
        """Wait for events in flight; return all events, each once, in the order received."""
        deadline = time.monotonic() + timeout_s
        while len(self._payloads) < expected and time.monotonic() < deadline:
            self._done.wait(0.05)
        self._done.set()
        self.join()
        if self.first_match_s is not None:
            print(f"\nfirst match {self.first_match_s:.1f} s after the command started")
        return list(self._payloads.values())

    def _print_event(self, message: ReceivedMessage) -> None:
        event = json.loads(message.payload)
        if event["id"] in self._payloads:
            return
        self._payloads[event["id"]] = event
        if event["type"] == "end":
            return
        match = event["match"]
        if match and self.first_match_s is None:
            self.first_match_s = time.monotonic() - self._started_s
        latency_ms = event["latency_ms"].get("capture_to_decision")
        print(
            self._ROW.format(
                f"{event['pts_s']:.1f}s",
                event["camera"],
                event["track_id"],
                event["type"],
                event["category"]["name"] if event["category"] else "-",
                (match["label"] if match else f"({event['reason']})")[:28],
                f"{match['score']:.2f}" if match else "-",
                f"{latency_ms:.0f} ms" if latency_ms is not None else "-",
            ),
            flush=True,
        )


def _draw_contact_sheet(
    sheet: Path, video: str, config: DeviceConfig, truth: GroundTruth, answers: list[TrackAnswer], result: Score
) -> None:
    """Draw each answered object beside its gallery picture."""
    frames = _frames(video, {round(a.pts_s * truth.fps) for a in answers})
    _, gallery = slots.read_active(config.state_dir)
    cards = [card for a in answers if (card := _card(a, frames, gallery, truth, result)) is not None]
    busiest = sorted(frames, key=lambda i: -len(truth.frames[min(i, len(truth.frames) - 1)]))[:_MAX_SHEET_FRAMES]
    shown = []
    for index in sorted(busiest):
        picture = frames[index].copy()
        for answer in answers:
            if round(answer.pts_s * truth.fps) == index:
                box = _pixels(answer, truth)
                image.draw_box(picture, box, (255, 210, 0))
                image.draw_text(picture, answer.item_id or "?", (int(box[0]), max(12, int(box[1]) - 4)), (255, 210, 0))
        shown.append(picture)
    sheet.parent.mkdir(parents=True, exist_ok=True)
    sheet.write_bytes(image.encode_image(contact_sheet(cards[:_MAX_SHEET_CARDS], shown), ".png"))


def _frames(video: str, wanted: set[int]) -> dict[int, Image]:
    frame_source = open_source(parse_source(f"file://{video}"), "opencv")
    found: dict[int, Image] = {}
    try:
        for index in range(max(wanted, default=-1) + 1):
            picture = frame_source.read(5.0)
            if picture is not None and index in wanted:
                found[index] = picture.image_rgb
    except EndOfStream:
        pass
    finally:
        frame_source.close()
    return found


def _pixels(answer: TrackAnswer, truth: GroundTruth) -> tuple[float, float, float, float]:
    x0, y0, x1, y1 = answer.box_rel
    return (x0 * truth.width, y0 * truth.height, x1 * truth.width, y1 * truth.height)


def _card(
    answer: TrackAnswer,
    frames: dict[int, Image],
    gallery: Gallery,
    truth: GroundTruth,
    result: Score,
) -> Card | None:
    frame = frames.get(round(answer.pts_s * truth.fps))
    if frame is None:
        return None
    object_id = result.object_of_track.get(answer.track_id)
    item = truth.objects[object_id].item_id if object_id is not None else None
    encoded = None
    if answer.item_id is not None and answer.category is not None:
        encoded = read_thumbnail(gallery.path(answer.category), answer.item_id)
    reference = image.decode_image(encoded, str(answer.item_id)) if encoded else None
    return Card(
        image.crop(frame, _pixels(answer, truth), 0.05),
        reference,
        answer.item_id or "unknown",
        f"{answer.score:.2f}" if answer.item_id == item else f"{answer.score:.2f}, actually {item}",
        None if object_id is None else answer.item_id == item,
    )


def _print_summary(runtime: Runtime, payloads: list[dict[str, Any]], result: Score, sheet: Path) -> int:
    counters = runtime.counters
    sent = counters.total("events")
    dropped = counters.total("outbox_dropped")
    frames = counters.total("frames_recognised")
    print(
        f"events published {counters.total('events_published')} of {sent}, received {len(payloads)}, dropped {dropped}"
    )
    print(
        f"objects {len(result.outcomes)}: right {result.count('right')}, wrong {result.count('wrong')}, "
        f"unknown {result.count('unknown')}, missed {result.count('missed')} "
        f"-> {result.share_right:.1%} identified correctly; tracks on no object {result.false_tracks}"
    )
    superseded = counters.total("frames_dropped", reason="superseded")
    print(f"frames recognised {frames}, superseded {superseded}, looks {counters.total('looks')}")
    print(f"{'stage':20} {'p50 ms':>8} {'p95 ms':>8}")
    total_ms = []
    for stage, times in runtime.timer.snapshot().items():
        print(f"{stage:20} {times.p50_ms:8.2f} {times.p95_ms:8.2f}")
        total_ms.append(times.p50_ms)
    print(f"resident memory {(resident_bytes() or 0) / 2**20:.0f} MiB; contact sheet: {sheet}")
    lost = len(payloads) != sent or dropped > 0
    passed = result.share_right >= MIN_SHARE_RIGHT and not lost
    print("demo passed" if passed else f"demo FAILED: expected {MIN_SHARE_RIGHT:.0%} right and no event lost")
    sys.stdout.flush()
    return 0 if passed else 1
