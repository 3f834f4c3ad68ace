"""How the agent reaches its broker."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from edge.errors import SyncError
from edge.telemetry.known_secrets import hide
from gallery_sync.mailbox.open_mailbox import Device, open_mailbox
from gallery_sync.mailbox.settings import Fleet, mqtt_settings

ACCOUNT = """\
FINESIGHT_MQTT_HOST='broker.example.com'
FINESIGHT_MQTT_PORT='8883'
FINESIGHT_MQTT_TLS='true'
FINESIGHT_MQTT_USERNAME='cam-1'
FINESIGHT_MQTT_PASSWORD='Kv9 x;$(y)pq'
"""


@pytest.fixture
def enrolled(tmp_path):
    (tmp_path / "broker.env").write_text(ACCOUNT)
    return tmp_path


def settings(folder, environment=None, **fleet):
    return mqtt_settings(Fleet(**fleet), folder, "cam-1", environment or {})


def test_account_of_the_enrolment_is_used(enrolled):
    found = settings(enrolled)
    assert (found.host, found.port, found.tls, found.username) == ("broker.example.com", 8883, True, "cam-1")
    assert found.password == "Kv9 x;$(y)pq"
    assert found.client_id == "finesight-cam-1-agent"


def test_password_is_hidden_from_now_on(enrolled):
    assert settings(enrolled).password not in repr(settings(enrolled))
    assert "Kv9" not in hide("refused: Kv9 x;$(y)pq")


def test_environment_comes_before_the_enrolment(enrolled):
    environment = {"FINESIGHT_MQTT_HOST": "10.0.0.2", "FINESIGHT_MQTT_USERNAME": "u", "FINESIGHT_MQTT_PASSWORD": "p"}
    found = settings(enrolled, environment)
    assert (found.host, found.port, found.tls, found.username) == ("10.0.0.2", 1883, False, "u")


def test_password_is_not_sent_to_another_host(enrolled):
    found = settings(enrolled, host="other.example.com")
    assert (found.host, found.username, found.password, found.tls) == ("other.example.com", None, None, False)


def test_credentials_of_the_environment_go_to_the_configured_host(tmp_path):
    environment = {"FINESIGHT_MQTT_USERNAME": "u", "FINESIGHT_MQTT_PASSWORD": "p"}
    found = settings(tmp_path, environment, host="broker.example.com")
    assert (found.username, found.password) == ("u", "p")


def test_client_certificate_means_tls(tmp_path):
    files = {"tls_ca": tmp_path / "ca", "tls_cert": tmp_path / "cert", "tls_key": tmp_path / "key"}
    found = settings(tmp_path, host="broker.example.com", version="5", **files)
    assert (found.tls, found.port, found.version, found.tls_cert) == (True, 8883, "5", tmp_path / "cert")


@pytest.mark.parametrize("text", [None, b"", b"\xff", b"FINESIGHT_MQTT_HOST=x"])
def test_without_a_broker_there_is_no_mailbox(tmp_path, text):
    if text is not None:
        (tmp_path / "broker.env").write_bytes(text)
    assert settings(tmp_path) is None
    assert open_mailbox(Fleet(), Device(tmp_path, None), {}) is None


def test_broker_without_an_identity_is_an_error(tmp_path):
    with pytest.raises(SyncError, match="this device has no id; enrol it"):
        open_mailbox(Fleet(host="broker.example.com"), Device(tmp_path, None), {})


@pytest.mark.parametrize(("name", "value"), [("PORT", "0"), ("PORT", "x"), ("PORT", "99999999"), ("TLS", "maybe")])
def test_wrong_value_is_named(tmp_path, name, value):
    with pytest.raises(SyncError, match=f"FINESIGHT_MQTT_{name}: found"):
        settings(tmp_path, {"FINESIGHT_MQTT_HOST": "h", f"FINESIGHT_MQTT_{name}": value})


@pytest.mark.parametrize("wrong", [{"tls_cert": "/x"}, {"prefix": "a/+"}, {"prefix": ""}, {"hots": "x"}, {"port": 0}])
def test_wrong_configuration_is_refused(wrong):
    with pytest.raises(ValidationError):
        Fleet(**wrong)
