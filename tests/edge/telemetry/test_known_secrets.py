"""The last net: exact values are removed from every text."""

from __future__ import annotations

import json
import logging
import subprocess
import sys
from urllib.parse import quote

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge.telemetry import known_secrets
from edge.telemetry.known_secrets import HidingFormatter, hide, hide_in, remember


@pytest.fixture(autouse=True)
def nothing_remembered(monkeypatch):
    monkeypatch.setattr(known_secrets, "_known", known_secrets._Known())


def test_remembered_value_is_hidden_wherever_it_is():
    assert hide("the word hunter2 in a sentence") == "the word hunter2 in a sentence"
    remember({"hunter2"})
    assert hide("the word hunter2 in a sentence") == "the word *** in a sentence"
    assert hide("hunter23 and Xhunter2 are other words") == "hunter23 and Xhunter2 are other words"
    remember({"correct horse"})
    assert hide("Xcorrect horseX, hunter2") == "X***X, ***"


def test_more_values_are_hidden_in_one_text_only():
    assert hide("a hunter2", ("hunter2", None)) == "a ***"
    assert hide("a hunter2") == "a hunter2"


@pytest.mark.parametrize("word", ["camera", "admin", "password", "a1", "online", ""])
def test_our_own_words_stay_or_they_would_tell_the_password(word):
    remember({word, None})
    assert hide("camera online, password of admin: a1") == "camera online, password of admin: a1"


SECRET = 'p@ss/w"ö<d 1'


@pytest.mark.parametrize(
    "written",
    [
        SECRET,
        quote(SECRET),
        quote(SECRET, safe=""),
        quote(SECRET, safe="").lower(),
        quote(SECRET, safe="").replace("%20", "+"),
        json.dumps(SECRET),
        json.dumps(SECRET, ensure_ascii=False),
        repr(SECRET),
        "p@ss/w&quot;ö&lt;d 1",
        "cEBzcy93IsO2PGQgMQ==",
    ],
)
def test_value_is_hidden_in_every_form(written):
    remember({SECRET})
    assert "***" in hide(f"<{written}>")
    assert "ss/w" not in hide(f"<{written}>")


@settings(derandomize=True, max_examples=100, deadline=None)
@given(st.text(min_size=8, max_size=16), st.text(max_size=20), st.text(max_size=20))
def test_any_remembered_value_is_hidden(secret, before, after):
    known_secrets._known = known_secrets._Known()
    remember({secret})
    for text in (secret, json.dumps(secret), repr(secret), quote(secret, errors="replace")):
        assert secret not in hide(f"{before}{text}{after}")


def test_json_keeps_its_shape():
    remember({"hunter2"})
    tree = {"hunter2": ["a hunter2", 1, None, True], "address": "rtsp://u:p@cam/live"}
    assert hide_in(tree) == {"hunter2": ["a ***", 1, None, True], "address": "rtsp://***@cam/live"}


def test_log_shows_no_secret_in_message_arguments_or_traceback():
    remember({"hunter2"})
    try:
        float("hunter2")
    except ValueError:
        record = logging.LogRecord("x", logging.ERROR, "x", 1, "user %s", ("hunter2",), sys.exc_info())
    text = HidingFormatter("%(message)s").format(record)
    assert text.startswith("user ***\nTraceback")
    assert "hunter2" not in text
    assert "ValueError: could not convert string to float: '***'" in text


PROGRAM = """
import logging, threading
from edge.telemetry.known_secrets import remember, set_up_logging
set_up_logging("INFO", "%(message)s")
remember({"hunter2"})
logging.getLogger("paho").info("connect with hunter2")
class Late:
    def __del__(self): raise ValueError("late hunter2")
Late()
def fail(): raise ValueError("thread hunter2")
thread = threading.Thread(target=fail); thread.start(); thread.join()
raise ValueError("rtsp:/admin:other@cam and hunter2")
"""


def test_exceptions_that_nobody_catches_show_no_secret():
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    for said in ("connect with ***", "late ***", "thread ***", "rtsp:/***@cam and ***"):
        assert said in done.stderr
    assert done.stderr.count("Traceback") == 3
    # the program's own text, which Python quotes in a traceback, is not there: it came by -c
    assert "other" not in done.stderr
    assert "hunter2" not in done.stderr
