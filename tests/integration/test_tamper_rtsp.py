"""Frozen and obstructed cameras, over real H.264 and RTSP."""

from __future__ import annotations

import contextlib
import signal
import subprocess
import sys
import threading
from functools import partial

import numpy as np

from edge.capture.camera import Camera
from edge.capture.camera_policy import Policy
from edge.capture.frame_source import CaptureOptions, EndOfStream
from edge.capture.latest_frames import LatestFrames
from edge.capture.open_source import open_source
from edge.capture.tamper import TamperDetector
from edge.config.camera_url import parse_source
from edge.config.schema import ViewConfig
from edge.imaging.image import encode_image, resize
from tests.integration.mosquitto import Mosquitto
from tests.integration.rtsp_server import RtspServer
from tests.integration.test_device import DEMO, ROOT, gather, install, subscribe, write_config
from tests.waiting import LONG_DEADLINE_S


def states_until(url, view, *wanted):
    """Run a camera until it has gone through the wanted states; return its states and drops."""
    states, enough = [], threading.Event()

    def on_state(_camera, state, reason):
        states.append((state, reason))
        if [state for state, _ in states] == list(wanted):
            enough.set()

    source = parse_source(url)
    open_frame_source = partial(open_source, source, "opencv", CaptureOptions(open_timeout_s=5, read_timeout_s=2))
    camera = Camera("cam", source, open_frame_source, LatestFrames(), on_state, Policy(view=view))
    camera.start()
    assert enough.wait(LONG_DEADLINE_S), f"expected {wanted}, found {states}"
    camera.stop()
    return states, camera.dropped


def photos(folder, count):
    """Pictures full of detail."""
    for number in range(count):
        rough = np.random.default_rng(number).integers(0, 255, (30, 40, 3), dtype=np.uint8)
        (folder / f"{number}.png").write_bytes(encode_image(resize(rough, 320, 240), ".png"))
    return f"photos:{folder}"


def test_camera_is_frozen_until_it_sends_another_picture(tmp_path):
    with RtspServer(photos(tmp_path, 2), seconds=15, fps=10) as server:  # opening takes some of the seconds
        states, dropped = states_until(server.url, ViewConfig(frozen_after_s=5), "online", "frozen", "online")
    assert states[1][1].startswith("nothing new for 5 s")
    assert dropped["frozen"] > 0


def film_at_constant_bitrate(path, pictures, fps=8):
    """Write H.264 at a constant bit rate, on one thread so that the same pictures give the same film."""
    import gi

    gi.require_version("Gst", "1.0")
    from gi.repository import Gst

    Gst.init(None)
    encode = f"x264enc threads=1 tune=zerolatency speed-preset=superfast pass=cbr bitrate=600 key-int-max={fps // 2}"
    shown = f"video/x-raw,format=RGB,width=320,height=240,framerate={fps}/1"
    line = f"appsrc name=pictures format=time caps={shown} ! videoconvert ! {encode} ! h264parse ! mp4mux ! filesink"
    pipeline = Gst.parse_launch(f"{line} location={path}")
    source = pipeline.get_by_name("pictures")
    pipeline.set_state(Gst.State.PLAYING)
    for number, image_rgb in enumerate(pictures):
        buffer = Gst.Buffer.new_wrapped(image_rgb.tobytes())
        buffer.pts, buffer.duration = number * Gst.SECOND // fps, Gst.SECOND // fps
        source.emit("push-buffer", buffer)
    source.emit("end-of-stream")
    pipeline.get_bus().timed_pop_filtered(Gst.CLOCK_TIME_NONE, Gst.MessageType.EOS | Gst.MessageType.ERROR)
    pipeline.set_state(Gst.State.NULL)
    return path


def tamper_states_of(film):
    """Return the tamper state after each picture of a film, by the film's own time."""
    detector = TamperDetector(ViewConfig(frozen_after_s=8))
    source = open_source(parse_source(f"file://{film}"), "gstreamer", CaptureOptions())
    found = []
    with contextlib.suppress(EndOfStream):
        while True:
            picture = source.read(LONG_DEADLINE_S)
            found.append(detector.update(picture.image_rgb, picture.pts_s))
    source.close()
    return found


def test_constant_bitrate_encoder_is_frozen_and_a_noisy_still_scene_is_not(tmp_path):
    rough = np.random.default_rng(0).integers(0, 255, (30, 40, 3), dtype=np.uint8)
    scene = resize(rough, 320, 240)
    noise = np.random.default_rng(1)
    still = (np.clip(scene + noise.normal(0, 1, scene.shape), 0, 255).astype(np.uint8) for _ in range(880))
    frozen = tamper_states_of(film_at_constant_bitrate(tmp_path / "frozen.mp4", [scene] * 880))
    moving = tamper_states_of(film_at_constant_bitrate(tmp_path / "still.mp4", still))
    reason = next(tamper.reason for tamper in frozen if tamper.state == "frozen")
    assert reason.startswith("the same picture, encoded again and again, for ")
    assert {tamper.state for tamper in moving} == {"online"}


def test_covered_camera_is_obstructed():
    with RtspServer("colour:101010") as server:
        states, dropped = states_until(server.url, ViewConfig(obstructed_after_s=1), "online", "obstructed")
    assert states[1][1].startswith("luma 1")
    assert dropped["obstructed"] > 0


def test_device_reports_an_obstructed_camera_without_events(tmp_path):
    install(tmp_path / "state")
    with Mosquitto(tmp_path) as broker, subscribe(broker.port) as subscriber, RtspServer("colour:808080") as server:
        config = write_config(tmp_path, broker.port, f"  cam: {{source: '{server.url}', backend: opencv}}\n")
        with subprocess.Popen([sys.executable, "-m", "edge", "run", "-c", config], cwd=ROOT) as device:
            seen = gather(subscriber.messages, lambda found: any(m.get("state") == "obstructed" for _, m in found))
            device.send_signal(signal.SIGTERM)
        late = gather(subscriber.messages, lambda found: any(topic.endswith("health") for topic, _ in found))
    health = [message for topic, message in late if topic.endswith("health")][-1]
    assert health["counters"]['frames_dropped{camera="cam",reason="obstructed"}'] > 0
    assert not any(topic.endswith("events") for topic, _ in seen + late)


def test_tracks_end_when_the_lens_is_covered(tmp_path):
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    shown = open_source(parse_source(f"file://{DEMO / 'stream.mp4'}"), "opencv", CaptureOptions())
    for _ in range(60):
        scene = shown.read(1.0).image_rgb
    shown.close()
    for name, image_rgb in (("0", scene), ("1", np.zeros_like(scene))):
        (pictures / f"{name}.png").write_bytes(encode_image(image_rgb, ".png"))
    install(tmp_path / "state")
    with (
        Mosquitto(tmp_path) as broker,
        subscribe(broker.port) as subscriber,
        RtspServer(f"photos:{pictures}", size=(640, 360), seconds=8, fps=10) as server,
    ):
        config = write_config(tmp_path, broker.port, f"  cam: {{source: '{server.url}', backend: opencv}}\n")
        with subprocess.Popen([sys.executable, "-m", "edge", "run", "-c", config], cwd=ROOT) as device:
            seen = gather(subscriber.messages, lambda found: any(m.get("state") == "obstructed" for _, m in found))
            device.send_signal(signal.SIGTERM)
        seen += gather(subscriber.messages, lambda found: any(topic.endswith("health") for topic, _ in found))
    states = [message["state"] for topic, message in seen if topic == "cam/status"]
    tracks = {kind: {m["track_id"] for _, m in seen if m.get("type") == kind} for kind in ("new", "end")}
    assert states[:2] == ["online", "obstructed"]
    assert tracks["new"] == tracks["end"] != set()
