"""The fleet's topics at a real mosquitto: who may use them, and a mailbox whose broker is killed."""

from __future__ import annotations

import json
import threading
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from edge.messaging.connection import Connection
from edge.messaging.settings import MqttSettings
from edge.telemetry.counters import Counters
from gallery_sync.cli import build_parser
from gallery_sync.mailbox.mailbox import MqttMailbox
from gallery_sync.mailbox.messages import Topics
from gallery_sync.mailbox.numbers import Numbers
from gallery_sync.mailbox.settings import Fleet, mqtt_settings
from tests.integration.certificates import Authority
from tests.integration.mosquitto import Mosquitto
from tests.integration.mqtt_samples import ReceivedMessages, settings
from tests.trust_samples import SignedFolder
from tests.waiting import until

A, B, SERVER = "cam-001", "cam-002", "fleet"
# without a limit, mosquitto 2.0.11 ends the connection of a client that it denies a message
LIMIT = "max_queued_messages 1000"
OWN, OTHER = f"fleet/v1/device/{A}", f"fleet/v1/device/{B}"
LINE = "fleet/v1/line/shop/desired"


@contextmanager
def client(found: MqttSettings, *topics: str):
    """Connect, subscribe, and receive in a thread; yield what publishes, and what was received."""
    received, ended = ReceivedMessages(), threading.Event()
    connection = Connection(found, on_message=received)
    connection.subscribe(*topics or ("#",))
    waiting: list[tuple[str, bytes]] = []

    def run():
        while not ended.is_set():
            while waiting:
                connection.publish(*waiting.pop(0))
            connection.step(0.05)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()

    def publish(topic, content=b"x"):
        waiting.append((topic, content))
        connection.wake()

    try:
        yield publish, received
    finally:
        ended.set()
        connection.wake()
        thread.join(60)
        connection.close()


def make_batch(folder: Path, name: str, *ids: str) -> Path:
    """Make enrolments as an operator does; return the folder."""
    repository = folder / "repo"
    if not repository.exists():
        made = SignedFolder(repository)
        (made.folder / "repository.json").write_text('{"line": "shop", "policy": "online"}')
    devices = [word for one in ids for word in ("--device", one)]
    words = [
        "enrolment",
        "new",
        str(repository),
        "--url",
        "https://updates.example.com",
        "--broker",
        "mqtt://localhost",
    ]
    parsed = build_parser().parse_args([*words, "-o", str(folder / name), *devices])
    assert parsed.act(parsed) == 0
    return folder / name


def account(broker: Mosquitto, batch: Path, name: str) -> MqttSettings:
    """Return the settings of a client with the account that the operator gives it."""
    if name == SERVER:
        text = (batch.parent / "fleet.env").read_text()
        password = text.partition("PASSWORD='")[2].partition("'")[0]
    else:
        password = json.loads((batch / f"{name}.json").read_text())["broker"]["password"]
    return settings(broker, f"test-{name}", username=name, password=password)


@contextmanager
def by_password(folder: Path):
    """A broker of two batches, whose password files were put together."""
    first, second = make_batch(folder, "batch-1", A), make_batch(folder, "batch-2", B)
    passwords = folder / "passwd"
    passwords.write_bytes((first / "mosquitto.passwd").read_bytes() + (second / "mosquitto.passwd").read_bytes())
    passwords.chmod(0o600)
    lines = (LIMIT, f"password_file {passwords}", f"acl_file {second / 'mosquitto.acl'}")
    with Mosquitto(folder / "mosquitto", lines=lines, anonymous=False) as broker:
        yield lambda name: account(broker, second if name == B else first, name)


@contextmanager
def by_certificate(folder: Path):
    """A broker that takes the name in a client certificate for the user name."""
    batch, authority = make_batch(folder, "batch-1", A, B), Authority(folder)
    certificate, key = authority.sign("broker")
    files = (f"cafile {authority.certificate}", f"certfile {certificate}", f"keyfile {key}")
    names = ("require_certificate true", "use_identity_as_username true", f"acl_file {batch / 'mosquitto.acl'}")
    pairs = {name: authority.sign(name) for name in (A, B, SERVER)}
    with Mosquitto(folder / "mosquitto", lines=(LIMIT, *files, *names), anonymous=False) as broker:

        def of(name: str) -> MqttSettings:
            own = {"tls_cert": pairs[name][0], "tls_key": pairs[name][1]}
            return settings(broker, f"test-{name}", tls=True, tls_ca=authority.certificate, **own)

        yield of


def heard(received: ReceivedMessages) -> list[str]:
    return [message.topic for message in received.messages]


@pytest.mark.parametrize("broker", [by_password, by_certificate])
def test_device_reads_and_writes_its_own_topics_alone(tmp_path, broker):
    with broker(tmp_path) as of, ExitStack() as clients:
        (say_a, at_a), (_, at_b), (say_server, at_server) = (
            clients.enter_context(client(of(name))) for name in (A, B, SERVER)
        )
        forbidden = [f"{OTHER}/{leaf}" for leaf in ("reported", "available", "answer", "desired", "cmd/sync")]
        forbidden += [f"{OWN}/desired", f"{OWN}/cmd/sync", LINE, f"finesight/s/{B}/cmd/restart_camera"]
        allowed = [f"{OWN}/{leaf}" for leaf in ("available", "answer", "reported")]
        for topic in [*forbidden, f"finesight/s/{A}/events", f"finesight/s/{A}/cmd/reply", *allowed]:
            say_a(topic)
        at_server.wait_for(lambda _: f"{OWN}/reported" in heard(at_server), "the last of the device's messages")
        assert heard(at_server) == [f"finesight/s/{A}/cmd/reply", *allowed]
        orders = [LINE, f"{OWN}/desired", f"{OWN}/cmd/sync", f"finesight/s/{A}/cmd/restart_camera"]
        others = [f"{OWN}/reported", f"{OTHER}/cmd/sync", f"finesight/s/{A}/events", f"{OTHER}/desired"]
        for topic in [*others[:3], *orders, others[3]]:
            say_server(topic)
        at_b.wait_for(lambda _: f"{OTHER}/desired" in heard(at_b), "the last of the server's messages")
        at_a.wait_for(lambda _: orders[-1] in heard(at_a), "the orders")
        assert heard(at_b) == [f"{OTHER}/cmd/sync", LINE, f"{OTHER}/desired"]
        assert [
            one for one in heard(at_a) if one not in (f"finesight/s/{A}/events", f"finesight/s/{A}/cmd/reply")
        ] == orders


@pytest.mark.parametrize("version", ["3.1.1", "5"])
def test_killed_broker_gets_the_newest_report_once_and_rings(tmp_path, version):
    quick = {"backoff_first_s": 0.05, "backoff_max_s": 0.1, "connect_timeout_s": 3.0}
    topics, counters = Topics(A, "shop"), Counters()
    content = {"labels": {"device": A, "line": "shop"}}
    with Mosquitto(tmp_path / "mosquitto") as broker:
        fleet = Fleet(host=broker.host, port=broker.port, version=version, spread_s=0, doorbell_every_s=0)
        found = replace(mqtt_settings(fleet, tmp_path, A, {}), **quick)
        box = MqttMailbox(found, topics, Numbers(tmp_path, A), fleet, counters)
        box.start()
        box.put(content | {"state": "idle"})
        until(lambda: counters.total("reports", result="sent") == 1, "the first report")
        broker.kill()
        until(lambda: not box.connected, "no connection")
        for state in ("fetch", "stage", "trial"):
            box.put(content | {"state": state})
        broker.start()
        with client(settings(broker, "server", version=version), topics.reported, topics.available) as (say, received):
            until(lambda: counters.total("reports", result="sent") == 2, "the newest report")
            received.wait_for(lambda all_: any(b'"trial"' in one.payload for one in all_), "the newest report")
            say(topics.doorbell, b'{"schema": "finesight.desired/1", "line": "shop", "revision": 8}')
            box.wait(10)
            assert box.rang()
            box.close()
            received.wait_for(lambda all_: all_[-1].payload == b"offline", "offline")
        reports = [json.loads(one.payload) for one in received.messages if one.topic == topics.reported]
        assert [(one["state"], one["revision"]) for one in reports if one["state"] != "idle"] == [("trial", 2)]
