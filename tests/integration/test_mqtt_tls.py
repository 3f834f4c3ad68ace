"""Real handshakes: who the device trusts, and whom the broker lets in."""

from __future__ import annotations

import socket
import subprocess

import pytest

from edge.demo.subscriber import Subscriber
from edge.errors import PublishError
from edge.messaging.connection import Connection
from edge.messaging.publisher import Publisher
from edge.messaging.settings import MqttSettings, tls_context
from tests.integration.certificates import Authority
from tests.integration.mosquitto import Mosquitto
from tests.integration.mqtt_samples import AVAILABLE, CommandQueue, put, settings, until


@pytest.fixture
def ours(tmp_path):
    return Authority(tmp_path, "ours")


@pytest.fixture
def other(tmp_path):
    return Authority(tmp_path, "other")


def broker_of(authority, folder, *lines):
    certificate, key = authority.sign("broker")
    files = (f"cafile {authority.certificate}", f"certfile {certificate}", f"keyfile {key}")
    return Mosquitto(folder / "mosquitto", lines=(*files, *lines))


@pytest.fixture
def broker(tmp_path, ours):
    with broker_of(ours, tmp_path) as broker:
        yield broker


@pytest.fixture
def strict_broker(tmp_path, ours):
    """Lets in who shows a certificate of its own authority."""
    with broker_of(ours, tmp_path, "require_certificate true") as broker:
        yield broker


def trusting(authority, broker, name, **changes):
    return settings(broker, name, tls=True, tls_ca=authority.certificate, **changes)


def shown(pair):
    return {"tls_cert": pair[0], "tls_key": pair[1]}


@pytest.mark.parametrize("version", ["3.1.1", "5"])
def test_events_arrive_over_tls(broker, ours, outbox, counters, version):
    command_queue = CommandQueue()
    with (
        Subscriber(trusting(ours, broker, "ear", version=version), "fs/#", command_queue),
        Publisher(trusting(ours, broker, "mouth", version=version), outbox, counters, AVAILABLE) as publisher,
    ):
        until(lambda: publisher.connected, "connected")
        command_queue.wait_for_ids(put(outbox, range(200)))
        until(lambda: outbox.depth()[0] == 0, "all acknowledged")
    assert counters.total("events_published") == 200
    assert [event["id"] for event in command_queue.events()] == [f"e{number}" for number in range(200)]


def test_events_wait_until_the_broker_shows_a_certificate_to_be_trusted(
    tmp_path, ours, other, outbox, counters, caplog
):
    wanted = put(outbox, range(5))
    with (
        broker_of(other, tmp_path) as broker,
        Publisher(trusting(ours, broker, "mouth"), outbox, counters, AVAILABLE) as publisher,
    ):
        until(lambda: counters.total("mqtt_failures", reason="unreachable") >= 3, "three attempts")
        assert not publisher.connected
        assert "cannot connect: [SSL: CERTIFICATE_VERIFY_FAILED] certificate verify failed: " in publisher.error
        assert outbox.depth()[0] == 5
        assert [record.levelname for record in caplog.records].count("WARNING") == 1  # not once per attempt
        ours.sign("broker")  # into the same files
        broker.stop()
        broker.start()
        command_queue = CommandQueue()
        with Subscriber(trusting(ours, broker, "ear"), "fs/#", command_queue):
            until(lambda: publisher.connected, "connected")
            wanted |= put(outbox, range(5, 10))
            until(lambda: outbox.depth()[0] == 0, "all acknowledged")
    assert counters.total("events_published") == len(wanted)


def test_a_broker_of_an_authority_that_the_system_does_not_know_is_refused(broker):
    with pytest.raises(PublishError, match="certificate verify failed: self-signed certificate in certificate chain"):
        Connection(settings(broker, "mouth", tls=True))


def test_a_certificate_for_another_host_is_refused(broker, ours):
    broker.host = "localhost"
    with pytest.raises(PublishError, match="Hostname mismatch, certificate is not valid for 'localhost'"):
        Connection(trusting(ours, broker, "mouth"))


@pytest.mark.parametrize("version", ["3.1.1", "5"])
def test_events_arrive_with_a_certificate_on_both_sides(strict_broker, ours, outbox, counters, version):
    ear, mouth = (shown(ours.sign(name)) for name in ("ear", "mouth"))
    command_queue = CommandQueue()
    with (
        Subscriber(trusting(ours, strict_broker, "ear", version=version, **ear), "fs/#", command_queue),
        Publisher(
            trusting(ours, strict_broker, "mouth", version=version, **mouth), outbox, counters, AVAILABLE
        ) as publisher,
    ):
        until(lambda: publisher.connected, "connected")
        command_queue.wait_for_ids(put(outbox, range(20)))
        until(lambda: outbox.depth()[0] == 0, "all acknowledged")


@pytest.mark.parametrize("version", ["3.1.1", "5"])
@pytest.mark.parametrize("stranger", [False, True])
def test_a_client_without_the_right_certificate_is_refused_and_told_why(
    strict_broker, ours, other, outbox, counters, version, stranger, caplog
):
    pair, alert = (shown(other.sign("mouth")), "unknown ca") if stranger else ({}, "certificate required")
    put(outbox, range(5))
    mouth = trusting(ours, strict_broker, "mouth", version=version, **pair)
    with Publisher(mouth, outbox, counters, AVAILABLE) as publisher:
        until(lambda: counters.total("mqtt_failures", reason="refused") >= 5, "five refusals")
        assert not publisher.connected
        assert publisher.error == f"broker {mouth.address}: refused the connection: TLS alert: {alert}"
    assert counters.total("mqtt_failures", reason="unreachable") == 0
    assert outbox.depth()[0] == 5
    assert [record.levelname for record in caplog.records].count("WARNING") == 1


def test_a_device_without_tls_does_not_get_through_to_a_broker_with_it(broker):
    with pytest.raises(PublishError, match="connection lost: "):
        Connection(settings(broker, "mouth"))


def test_a_broker_that_does_not_answer_the_handshake_is_given_up_in_time(ours):
    with socket.create_server(("127.0.0.1", 0)) as silent:
        host, port = silent.getsockname()
        with pytest.raises(PublishError, match=r"cannot connect: .*timed out"):
            Connection(MqttSettings("mouth", host, port, tls=True, tls_ca=ours.certificate, connect_timeout_s=0.2))


def test_a_file_that_is_missing_encrypted_or_of_another_is_one_clear_error(tmp_path, ours):
    (certificate, key), (_, key_of_other) = ours.sign("mouth"), ours.sign("other")
    encrypted = tmp_path / "encrypted.key"
    encrypt = ["openssl", "ec", "-in", key, "-out", encrypted, "-aes128", "-passout", "pass:hunter2"]
    subprocess.run(encrypt, check=True, capture_output=True)
    for tls_key, reason in [
        (tmp_path / "missing.key", "No such file or directory"),
        (encrypted, "found an encrypted key, expected one without a pass phrase"),
        (key_of_other, "key values mismatch"),
    ]:
        files = f"TLS files {ours.certificate}, {certificate}, {tls_key}: cannot load: "
        with pytest.raises(PublishError, match=f"^{files}.*{reason}"):
            tls_context(MqttSettings("mouth", tls=True, tls_ca=ours.certificate, tls_cert=certificate, tls_key=tls_key))
