"""No secret of a configuration is in anything that leaves the device: output, log, HTTP, MQTT, support archive.

Each secret holds the word `sesame`, so the test is one search in all of it.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tarfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edge import cli
from edge.demo.subscriber import Subscriber
from edge.messaging.settings import MqttSettings
from tests.integration.mosquitto import Mosquitto, free_port
from tests.integration.rtsp_server import RtspServer
from tests.integration.test_device import DEMO, ROOT, edge, install
from tests.waiting import DEADLINE_S

WORD = "sesame"
SOURCES = [  # spelled so that each is refused, or is read and does not answer
    "rtsp://admin:sesame@127.0.0.1:9/live",
    "rtsp://admin:se%73ame-sesame@127.0.0.1:9/live",
    "rtsp:/admin:sesame@127.0.0.1/live",
    "rtsp//admin:sesame@127.0.0.1/live",
    "rtsp;//admin:sesame@127.0.0.1/live",
    "rtsp:admin:sesame@127.0.0.1/live",
    "rtps://admin:sesame@127.0.0.1/live",
    "admin:sesame@127.0.0.1/live",
    "http://admin:sesame@127.0.0.1/live",
    "rtsp://admin:p@ss/sesame@127.0.0.1/live",
    "rtsp://admin:1/sesame@127.0.0.1/live",
    "rtsp://admin:a?sesame@127.0.0.1/live",
    "rtsp://admin:a#sesame@127.0.0.1/live",
    "rtsp://admin:my sesame@127.0.0.1:9/live",
    "rtsp://admin:sesame/127.0.0.1/live",
    "rtsp://admin:sesame",
    "rtsp://sesame@127.0.0.1:9/live",
    "rtsp://[::1:sesame@/live",
    "rtsp://127.0.0.1:9/user=admin&password=sesame&channel=1",
    "rtsp://127.0.0.1:9/user=admin_password=sesame_channel=1_stream=0.sdp",
    "rtsp://127.0.0.1:9/live?apikey=sesame",
    "rtsp://127.0.0.1:9/live?access_token=sesame&psw=sesame",
    "rtsp://127.0.0.1:9/live?sig=sesame&login=sesame:sesame",
    "rtsp://127.0.0.1:9/live?sesame",
    "rtsp://127.0.0.1:9/live#sesame",
    "rtsps://127.0.0.1:9/SesameAbC1dE2fG3hI4sesame?enableSrtp",
    "file:///nothing.mp4?token=sesame",
    "v4l2:///dev/video99?password=sesame",
    "gst:rtspsrc location=rtsp://admin:sesame@127.0.0.1:9/x ! fakesink",
    "gst:rtspsrc location=rtsp://127.0.0.1:9 user-id=sesame user-pw=sesame ! decodebin ! appsink name=sink",
    "gst:rtspsrc location=rtsp://127.0.0.1:9 never-heard=sesame ! decodebin ! appsink name=sink",
    'gst:souphttpsrc location=http://127.0.0.1:9 extra-headers="x,Authorization=(string)sesame" ! appsink name=sink',
]
DOCUMENTS = [  # mistakes in the file itself; {} is a camera
    "{}mqtt: {{password: *sesame}}\n",
    "{}mqtt: {{password: !sesame x}}\n",
    "{}mqtt: {{password: &sesame x, username: &sesame y}}\n",
    "{}mqtt: {{password:sesame}}\n",
    "{}mqtt: {{password: sesame: x}}\n",
    "{}mqtt: {{'password=sesame': 1}}\n",
    "{}mqtt: password:sesame\n",
    "{}mqtt: sesame\n",
    "{}mqtt: {{password: [sesame]}}\n",
    "{}mqtt: {{passwort: sesame}}\n",
    '{}mqtt: {{password: "sesame\n',
    "{}mqtt: {{password: 'sesame', password: 'sesame'}}\n",
    "{}mqtt:\n  password: sesame\n host: x\n",
    "{}mqtt: {{port: 'admin:sesame@broker'}}\n",
    "{}kiosk: {{camera: desk, token: sesame, host: 0.0.0.0}}\n",
    "{}kiosk: {{camera: desk, upload_url: 'ftp://u:sesame@h/x'}}\n",
    "{}kiosk: {{camera: desk, upload_url: sesame}}\n",
    "{}unknowns: {{upload_url: 'ftp://u:sesame@h/x', upload_token: sesame}}\n",
    "{}health: {{token: [sesame], host: 0.0.0.0}}\n",
    "cameras: {{desk: 'rtsp://admin:sesame@cam'}}\n",
    "cameras: {{'rtsp://admin:sesame@cam': {{}}}}\n",
    "cameras: {{desk: {{source: 'rtsp://admin:sesame@cam', framing: sesame}}}}\n",
    "{}mqtt: {{host: 'admin:sesame@127.0.0.1', port: 9}}\n",
    "{}mqtt: {{host: 'mqtt://admin:sesame@127.0.0.1', port: 9}}\n",
]
CAMERA = "cameras: {desk: {source: 'file:///nothing.mp4'}}\n"


def has_secret(text: str) -> bool:
    """Whether a text holds the word, also as one of the addresses spells it."""
    return WORD in text.lower().replace("%73", "s")


def said_by_check(folder: Path, text: str, capfd, *more: str) -> str:
    """Return what `edge check` prints about a configuration."""
    (folder / "device.yaml").write_text(text)
    cli.main(["check", "-c", str(folder / "device.yaml"), "--state-dir", str(folder / "state"), *more])
    said = capfd.readouterr()
    return said.out + said.err


@pytest.fixture(scope="module")
def installed(tmp_path_factory) -> Path:
    """One installed demo for all tests that only read it."""
    state = tmp_path_factory.mktemp("installed") / "state"
    install(state)
    return state


@pytest.mark.parametrize("source", SOURCES)
def test_check_shows_no_secret_of_a_source(source, installed, tmp_path, capfd):
    (tmp_path / "state").symlink_to(installed)
    config = json.dumps({"cameras": {"desk": {"source": source, "open_timeout_s": 0.5}}})
    said = said_by_check(tmp_path, config, capfd, "--probe", "--seconds", "0.2")
    assert "desk" in said
    assert not has_secret(said)
    assert "Traceback" not in said


@pytest.mark.parametrize("document", DOCUMENTS)
def test_check_shows_no_secret_of_a_broken_file(document, tmp_path, capfd):
    said = said_by_check(tmp_path, document.format(CAMERA), capfd)
    assert said
    assert not has_secret(said)
    assert "Traceback" not in said


PASSWORDS = st.text(st.characters(codec="utf-8", exclude_categories=["Cc", "Cs"]), max_size=8)
MARKS = st.sampled_from(["", ":", "/", "@", "?", "#", "&", "=", " ", "%", "//", "[", "]", "'", '"', "\\"])


@settings(derandomize=True, max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(before=MARKS, after=PASSWORDS, scheme=st.sampled_from(["rtsp://", "rtsp:/", "rtsp//", "http://", ""]))
def test_check_shows_no_made_up_secret(before, after, scheme, tmp_path, capfd):
    source = f"{scheme}admin:{before}sesame{after}@127.0.0.1:9/live"
    assert not has_secret(said_by_check(tmp_path, json.dumps({"cameras": {"desk": {"source": source}}}), capfd))


# Nothing listens on port 9. The passwords are spelled as people spell them, and in each place where one can be
DEVICE = """
site: test
device: one
state_dir: {folder}/state
mqtt: {{host: 127.0.0.1, port: {broker}, username: edge, password: "${{BROKER_PASSWORD}}"}}
health: {{port: {health}, token: "${{HEALTH_TOKEN}}"}}
snapshots: {{}}
live: {{}}
kiosk:
  camera: desk
  port: {kiosk}
  token: sesame-of-the-kiosk
  upload_url: "http://user:sesame-1@127.0.0.1:9/taught?X-Amz-Signature=sesame2&sig=sesame3"
  upload_token: sesame-of-the-upload
unknowns:
  cameras: [desk]
  upload_url: "http://user:sesame-4@127.0.0.1:9/unknowns?sig=sesame5"
  upload_token: sesame-of-the-unknowns
cameras:
  desk: {{source: "folder://{probes}/*.png?fps=5&loop=1", framing: whole_frame}}
  refused: {{source: "{refused}", backend: opencv, open_timeout_s: 5}}
  refused-2: {{source: "{refused}", backend: gstreamer, open_timeout_s: 5}}
  opencv: {{source: "rtsp://admin:se%73ame%2F8%40@127.0.0.1:9/live", backend: opencv}}
  gst: {{source: "rtsp://admin:sesame%2F9@127.0.0.1:9/live?token=sesame-10", backend: gstreamer}}
  host: {{source: "rtsp://admin:sesame11@nowhere.invalid/user=a&password=sesame12", backend: opencv}}
  pipe:
    source: "gst:rtspsrc location=rtsp://admin:sesame13@127.0.0.1:9 user-pw=sesame14 ! decodebin ! appsink name=sink"
# an old password: sesame-15
"""
ENVIRONMENT = {"BROKER_PASSWORD": "sesame-of-the-broker", "HEALTH_TOKEN": "sesame-of-health"}


@pytest.fixture(scope="module")
def outlets(tmp_path_factory) -> dict[str, str]:
    """Run a device with secrets in every field, and return all that it gave out."""
    folder = tmp_path_factory.mktemp("secrets")
    install(folder / "state")
    ports = {"health": free_port(), "kiosk": free_port()}
    with (
        Mosquitto(folder / "broker", {"edge": ENVIRONMENT["BROKER_PASSWORD"]}) as broker,
        RtspServer("colour:e02010", login="basic:admin:sesame-of-the-camera") as camera,
    ):
        config = folder / "device.yaml"
        refused = camera.url.replace("rtsp://", "rtsp://admin:sesame-wrong@")
        places = ports | {"folder": folder, "broker": broker.port, "probes": DEMO / "bundle/probes", "refused": refused}
        config.write_text(DEVICE.format(**places))
        given = {}
        with device_running(config, folder / "log") as process:
            given |= heard_while_running(config, ports, broker.port, process)
        given["log"] = (folder / "log").read_text()
        for verb in ("check", "doctor"):
            more = ("--probe", "--seconds", "0.5") if verb == "check" else ()
            done = edge("--log-level", "debug", verb, "-c", config, *more, env=os.environ | ENVIRONMENT)
            given[verb] = done.stdout + done.stderr
        state = folder / "state"
        for path in sorted(path for path in state.rglob("*") if path.is_file() and path.suffix in {".json", ".sqlite"}):
            given[str(path)] = path.read_bytes().decode("latin-1")
    return given


@contextmanager
def device_running(config: Path, log: Path) -> Iterator[subprocess.Popen]:
    with log.open("w") as output:
        command = [sys.executable, "-m", "edge", "--log-level", "debug", "run", "-c", str(config)]
        process = subprocess.Popen(command, cwd=ROOT, stdout=output, stderr=output, env=os.environ | ENVIRONMENT)
        try:
            yield process
        finally:
            process.send_signal(signal.SIGTERM)
            assert process.wait(60) == 0, log.read_text()


def heard_while_running(config: Path, ports: dict[str, int], broker_port: int, process) -> dict[str, str]:
    base = f"http://127.0.0.1:{ports['health']}"
    settings_ = MqttSettings("ear", "127.0.0.1", broker_port, "edge", ENVIRONMENT["BROKER_PASSWORD"])
    with Subscriber(settings_, "#") as subscriber:
        messages = gather_health(subscriber, {"refused", "refused-2", "opencv", "gst", "host", "pipe"})
        # an invalid file, read again: the reason is in health
        text = config.read_text()
        config.write_text(text.replace("rtsp://admin:sesame11@nowhere", "rtsp:/admin:sesame11@nowhere"))
        process.send_signal(signal.SIGHUP)
        messages += gather_until(subscriber, lambda message: b"no known scheme" in message.payload)
        given = {"mqtt": "\n".join(f"{message.topic} {message.payload!r}" for message in messages)}
        for path in ("/status", "/healthz", "/readyz", "/metrics", "/nothing?token=x"):
            given[path] = fetch(base + path)
        config.write_text(text)
        archive = config.parent / "support.tar.gz"
        for command in (("status", "-c", config), ("support-bundle", "-c", config, "-o", archive)):
            done = edge("--log-level", "debug", *command, env=os.environ | ENVIRONMENT)
            assert done.returncode == 0, done.stderr
            given[command[0]] = done.stdout + done.stderr
    with tarfile.open(archive) as tar:
        for member in tar.getmembers():
            given[member.name] = tar.extractfile(member).read().decode()
    return given


def fetch(url: str) -> str:
    try:
        with urllib.request.urlopen(url, timeout=60) as answer:
            return answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.read().decode()


def gather_until(subscriber: Subscriber, enough) -> list:
    found = []
    deadline = time.monotonic() + DEADLINE_S
    while not (found and enough(found[-1])):
        found.append(subscriber.messages.get(timeout=max(0.1, deadline - time.monotonic())))
    return found


def gather_health(subscriber: Subscriber, cameras: set[str]) -> list:
    """Collect messages until the state of each camera has a reason."""
    waiting = set(cameras)

    def enough(message) -> bool:
        level = message.topic.split("/")
        if level[-1] == "status" and json.loads(message.payload or b"{}").get("detail"):
            waiting.discard(level[-2])
        return not waiting

    return gather_until(subscriber, enough)


def test_device_gives_no_secret_out(outlets):
    leaks = {name: line for name, text in outlets.items() for line in text.splitlines() if has_secret(line)}
    assert leaks == {}


def test_device_says_what_is_wrong_without_the_secret(outlets):
    assert "401" in outlets["mqtt"]
    assert "rtsp:/***@nowhere.invalid" in outlets["/status"]
    written = json.loads(outlets["finesight-support/device.json"])
    assert written["kiosk"]["upload_url"] == "http://***@127.0.0.1:9/taught?X-Amz-Signature=***&sig=***"
    assert {"password", "token", "upload_token"} <= {
        key for part in (written["mqtt"], written["kiosk"], written["health"]) for key in part if part[key] == "***"
    }
