"""TLS handshakes with a real broker: certificates of the broker and of the client."""

from __future__ import annotations

import socket
import subprocess

import pytest

from edge.demo.subscriber import Subscriber
from edge.errors import PublishError
from edge.messaging.connection import Connection, tls_context
from edge.messaging.publisher import Publisher
from edge.messaging.settings import MqttSettings
from tests.integration.certificates import Authority
from tests.integration.mosquitto import Mosquitto
from tests.integration.mqtt_samples import AVAILABLE, ReceivedMessages, put, settings
from tests.waiting import until


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
    """A broker that accepts only clients with a certificate of its own authority."""
    with broker_of(ours, tmp_path, "require_certificate true") as broker:
        yield broker


def trusting(authority, broker, name, **changes):
    return settings(broker, name, tls=True, tls_ca=authority.certificate, **changes)


def tls_files(files):
    return {"tls_cert": files[0], "tls_key": files[1]}


@pytest.mark.parametrize("version", ["3.1.1", "5"])
def test_events_arrive_over_tls(broker, ours, outbox, counters, version):
    received = ReceivedMessages()
    with (
        Subscriber(trusting(ours, broker, "subscriber", version=version), "fs/#", received),
        Publisher(trusting(ours, broker, "device", version=version), outbox, counters, AVAILABLE) as publisher,
    ):
        until(lambda: publisher.connected, "connected")
        received.wait_for_ids(put(outbox, range(200)))
        until(lambda: outbox.depth()[0] == 0, "all acknowledged")
    assert counters.total("events_published") == 200
    assert [event["id"] for event in received.events()] == [f"e{number}" for number in range(200)]


def test_events_wait_until_the_broker_certificate_is_trusted(tmp_path, ours, other, outbox, counters, caplog):
    wanted = put(outbox, range(5))
    with (
        broker_of(other, tmp_path) as broker,
        Publisher(trusting(ours, broker, "device"), outbox, counters, AVAILABLE) as publisher,
    ):
        until(lambda: counters.total("mqtt_failures", reason="unreachable") >= 3, "three attempts")
        assert not publisher.connected
        assert "cannot connect: [SSL: CERTIFICATE_VERIFY_FAILED] certificate verify failed: " in publisher.error
        assert outbox.depth()[0] == 5
        assert [record.levelname for record in caplog.records].count("WARNING") == 1  # not once per attempt
        ours.sign("broker")  # into the same files
        broker.stop()
        broker.start()
        received = ReceivedMessages()
        with Subscriber(trusting(ours, broker, "subscriber"), "fs/#", received):
            until(lambda: publisher.connected, "connected")
            wanted |= put(outbox, range(5, 10))
            until(lambda: outbox.depth()[0] == 0, "all acknowledged")
    assert counters.total("events_published") == len(wanted)


def test_broker_of_an_unknown_authority_is_refused(broker):
    with pytest.raises(PublishError, match="certificate verify failed: self-signed certificate in certificate chain"):
        Connection(settings(broker, "device", tls=True))


def test_certificate_for_another_host_is_refused(broker, ours):
    broker.host = "localhost"
    with pytest.raises(PublishError, match="Hostname mismatch, certificate is not valid for 'localhost'"):
        Connection(trusting(ours, broker, "device"))


@pytest.mark.parametrize("version", ["3.1.1", "5"])
def test_events_arrive_over_mutual_tls(strict_broker, ours, outbox, counters, version):
    subscriber_files, device_settings = (tls_files(ours.sign(name)) for name in ("subscriber", "device"))
    received = ReceivedMessages()
    with (
        Subscriber(trusting(ours, strict_broker, "subscriber", version=version, **subscriber_files), "fs/#", received),
        Publisher(
            trusting(ours, strict_broker, "device", version=version, **device_settings), outbox, counters, AVAILABLE
        ) as publisher,
    ):
        until(lambda: publisher.connected, "connected")
        received.wait_for_ids(put(outbox, range(20)))
        until(lambda: outbox.depth()[0] == 0, "all acknowledged")


@pytest.mark.parametrize("version", ["3.1.1", "5"])
@pytest.mark.parametrize("stranger", [False, True])
def test_client_with_a_wrong_certificate_gets_the_reason(
    strict_broker, ours, other, outbox, counters, version, stranger, caplog
):
    files, alert = (tls_files(other.sign("device")), "unknown ca") if stranger else ({}, "certificate required")
    put(outbox, range(5))
    device_settings = trusting(ours, strict_broker, "device", version=version, **files)
    with Publisher(device_settings, outbox, counters, AVAILABLE) as publisher:
        until(lambda: counters.total("mqtt_failures", reason="refused") >= 5, "five refusals")
        assert not publisher.connected
        assert publisher.error == f"broker {device_settings.address}: refused the connection: TLS alert: {alert}"
    assert counters.total("mqtt_failures", reason="unreachable") == 0
    assert outbox.depth()[0] == 5
    assert [record.levelname for record in caplog.records].count("WARNING") == 1


def test_device_without_tls_cannot_connect_to_a_tls_broker(broker):
    with pytest.raises(PublishError, match="connection lost: "):
        Connection(settings(broker, "device"))


def test_handshake_without_an_answer_times_out(ours):
    with socket.create_server(("127.0.0.1", 0)) as silent:
        host, port = silent.getsockname()
        with pytest.raises(PublishError, match=r"cannot connect: .*timed out"):
            Connection(MqttSettings("device", host, port, tls=True, tls_ca=ours.certificate, connect_timeout_s=0.2))


def test_bad_key_file_is_one_clear_error(tmp_path, ours):
    (certificate, key), (_, key_of_other) = ours.sign("device"), ours.sign("other")
    encrypted = tmp_path / "encrypted.key"
    encrypt = ["openssl", "ec", "-in", key, "-out", encrypted, "-aes128", "-passout", "pass:hunter2"]
    subprocess.run(encrypt, check=True, capture_output=True)
    for tls_key, reason in [
        (tmp_path / "missing.key", "No such file or directory"),
        (encrypted, "the key is encrypted; give one without a pass phrase"),
        (key_of_other, "key values mismatch"),
    ]:
        files = f"TLS files {ours.certificate}, {certificate}, {tls_key}: cannot load: "
        with pytest.raises(PublishError, match=f"^{files}.*{reason}"):
            tls_context(
                MqttSettings("device", tls=True, tls_ca=ours.certificate, tls_cert=certificate, tls_key=tls_key)
            )
