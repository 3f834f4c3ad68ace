"""Which values of a configuration are secrets."""

from __future__ import annotations

from edge.config.secret_values import SECRET_KEYS, secret_values


def test_fields_that_are_not_printed_are_the_secret_ones():
    assert {"source", "password", "token", "upload_url", "upload_token"} == SECRET_KEYS


def test_every_secret_of_a_file_is_found():
    tree = {
        "mqtt": {"password": "h0rse", "username": "edge", "port": 1883, "host": "user:in-the-host@broker"},
        "kiosk": {"token": 12345678, "upload_url": "https://h/b?sig=5ig", "upload_token": ["in", {"a": "list"}]},
        "cameras": {"door": {"source": "rtsp://admin:pl%61in@cam/live?channel=1", "enabled": True}},
        "health": {"token": None},
        "notes": "see https://h/x?key=k3y",
    }
    found = secret_values(tree)
    assert {"h0rse", "12345678", "5ig", "in", "list", "pl%61in", "plain", "in-the-host", "k3y"} <= found
    assert not {"edge", "1883", "cam", "door", "1", "True", "None"} & found


def test_address_of_no_kind_gives_all_before_its_last_at():
    assert "admin:h/unter@2" in secret_values({"source": "rtsp:/admin:h/unter@2@cam"})
