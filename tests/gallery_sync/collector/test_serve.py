"""The options, tokens and accounts of `edge-sync fleet serve`."""

from __future__ import annotations

import pytest

from edge.errors import SyncError
from gallery_sync.cli import main
from gallery_sync.collector.credentials import read_account, read_token
from gallery_sync.collector.serve import Options, broker_settings


def test_account_comes_from_file_or_environment(tmp_path):
    file = tmp_path / "broker.env"
    file.write_text("# fleet\nFINESIGHT_MQTT_USERNAME='fleet'\nFINESIGHT_MQTT_PASSWORD='s=cret'\n")
    assert read_account(file, {}) == ("fleet", "s=cret")
    assert read_account(None, {"FINESIGHT_MQTT_USERNAME": "a", "FINESIGHT_MQTT_PASSWORD": "b"}) == ("a", "b")
    assert read_account(None, {}) is None
    file.write_text("FINESIGHT_MQTT_USERNAME=fleet\n")
    with pytest.raises(SyncError, match="expected both"):
        read_account(file, {})


def test_broker_address_is_read(tmp_path):
    settings = broker_settings(Options(tmp_path, "mqtts://broker.example.com", ca_file=tmp_path / "ca.pem"))
    assert (settings.host, settings.port, settings.tls, settings.tls_ca) == (
        *("broker.example.com", 8883, True, tmp_path / "ca.pem"),
    )
    for wrong in ("broker", "mqtt://u:p@host", "http://host", "mqtt://host:x", "mqtt://[", "mqtt://host/path"):
        with pytest.raises(SyncError, match="--broker"):
            broker_settings(Options(tmp_path, wrong))
    with pytest.raises(SyncError, match="are for mqtts"):
        broker_settings(Options(tmp_path, "mqtt://host", ca_file=tmp_path))


@pytest.mark.parametrize("text", ["", "short", "with spaces in the token", "ümlaut-of-a-token"])
def test_token_that_is_none_is_refused(tmp_path, text):
    (tmp_path / "token").write_text(text)
    with pytest.raises(SyncError, match="openssl rand"):
        read_token(tmp_path / "token")


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        (["--listen", "0.0.0.0:0"], "needs --token-file"),
        (["--listen", "8090"], "expected HOST:PORT"),
        (["--keep-days", "0"], "expected 1 to 36500"),
        (["--prefix", "fleet/#"], "--prefix: expected levels"),
        (["--account-file", "/nowhere"], "cannot read"),
    ],
)
def test_wrong_options_of_the_server_are_one_error(tmp_path, capsys, options, problem):
    command = ["fleet", "serve", "--database", f"{tmp_path}/fleet.sqlite", "--broker", "mqtt://127.0.0.1:1"]
    assert main([*command, *options]) == 1
    assert problem in capsys.readouterr().err
