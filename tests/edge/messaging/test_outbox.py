from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import sqlite3
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge.errors import OutboxError
from edge.messaging.outbox import Outbox
from edge.messaging.outbox_salvage import read_set_aside
from edge.telemetry.counters import Counters

NOW = 1_700_000_000.0
SQLITE_HEADER = b"SQLite format 3\0\x10\0\2\2\0\x40\x20\x20"


@pytest.fixture
def path(tmp_path):
    return tmp_path / "state" / "outbox.sqlite"


def put(outbox, *ids, priority=1, payload=b"x" * 100):
    for event_id in ids:
        outbox.put("t/events", payload, priority, event_id)


def ids(outbox, limit=1000, after=0):
    return [message.event_id for message in outbox.pending(limit, after)]


def test_messages_keep_their_order(path):
    with Outbox(path, Counters()) as outbox:
        put(outbox, "a", "b", "c")
        assert outbox.flush()
        put(outbox, "d")
        assert ids(outbox) == ["a", "b", "c", "d"]
        assert ids(outbox, limit=2) == ["a", "b"]
        assert ids(outbox, after=outbox.pending(2)[-1].sequence) == ["c", "d"]
        message = outbox.pending(1)[0]
        assert (message.topic, message.payload, message.priority) == ("t/events", b"x" * 100, 1)


def test_messages_survive_a_restart(path):
    with Outbox(path, Counters()) as outbox:
        put(outbox, "a", "b")
        last = outbox.last_sequence
    with Outbox(path, Counters()) as outbox:
        put(outbox, "c")
        assert ids(outbox) == ["a", "b", "c"]
        assert outbox.last_sequence == last + 1


def test_acknowledged_messages_are_deleted(path):
    with Outbox(path, Counters()) as outbox:
        put(outbox, "a", "b")
        outbox.flush()
        put(outbox, "c")
        outbox.acknowledge(["a", "c", "never seen"])
        assert ids(outbox) == ["b"]
        outbox.flush()
        assert ids(outbox) == ["b"]
        assert outbox.depth()[0] == 1
    with Outbox(path, Counters()) as outbox:
        assert ids(outbox) == ["b"]


def test_message_acknowledged_before_its_commit_is_never_written(path):
    counters = Counters()
    with Outbox(path, counters, commit_interval_s=30.0) as outbox:
        put(outbox, "a")
        outbox.acknowledge(["a"])
    assert counters.total("outbox_stored") == 0


@pytest.mark.parametrize("stored", [False, True])
def test_duplicate_id_is_ignored(path, stored):
    counters = Counters()
    with Outbox(path, counters) as outbox:
        put(outbox, "a", payload=b"first")
        if stored:
            outbox.flush()
        put(outbox, "a", payload=b"second")
        outbox.flush()
        assert [message.payload for message in outbox.pending(10)] == [b"first"]
    assert counters.total("outbox_duplicates") == 1


def test_full_file_drops_updates_first_then_the_oldest(path):
    counters = Counters()
    with Outbox(path, counters, max_bytes=1200) as outbox:
        put(outbox, "new1")
        put(outbox, "update1", "update2", "update3", priority=0)
        put(outbox, "end1", "new2")
        outbox.flush()
        assert ids(outbox) == ["new1", "update3", "end1", "new2"]
        put(outbox, "new3", "new4")
        outbox.flush()
        assert ids(outbox) == ["end1", "new2", "new3", "new4"]
        assert outbox.depth()[1] <= 1200
    assert counters.total("outbox_dropped", reason="bytes", priority="0") == 3
    assert counters.total("outbox_dropped", reason="bytes", priority="1") == 1


def test_memory_is_bounded(path):
    counters = Counters()
    with Outbox(path, counters, max_memory_bytes=1000, commit_interval_s=30.0) as outbox:
        put(outbox, "u", priority=0)
        put(outbox, *(f"n{n}" for n in range(9)))
        assert ids(outbox) == ["n5", "n6", "n7", "n8"]
    assert counters.total("outbox_dropped", reason="memory") == 6


def test_stored_messages_are_not_counted_as_dropped(path):
    counters = Counters()
    with Outbox(path, counters, max_memory_bytes=1000) as outbox:
        with outbox._file._lock:  # a slow disk
            put(outbox, "u", priority=0)
            while outbox._writing_up_to == 0:
                pass
            put(outbox, *(f"n{n}" for n in range(9)))
        assert outbox.flush()
        assert ids(outbox) == ["u", "n5", "n6", "n7", "n8"]
    assert counters.total("outbox_dropped") == 5


def test_old_messages_are_dropped_and_counted(path):
    clock, counters = [NOW], Counters()
    with Outbox(path, counters, max_age_s=60.0, now=lambda: clock[0]) as outbox:
        put(outbox, "old")
        outbox.flush()
        clock[0] += 61.0
        put(outbox, "fresh")
        outbox.flush()
        assert ids(outbox) == ["fresh"]
    assert counters.total("outbox_dropped", reason="age") == 1


def test_unset_clock_ages_no_message(path):
    """A device without a battery clock boots in 1970 and jumps fifty years once the network is up."""
    clock = [3.0]
    with Outbox(path, Counters(), max_age_s=60.0, now=lambda: clock[0]) as outbox:
        put(outbox, "booting")
        outbox.flush()
        clock[0] = NOW
        put(outbox, "running")
        outbox.flush()
        assert ids(outbox) == ["booting", "running"]


KEPT = {"garbage": (False, False), "middle": (False, False), "version": (True, True)}


@pytest.mark.parametrize("damage", KEPT)
def test_damaged_file_is_moved_aside_logged_and_counted(path, damage, caplog):
    with Outbox(path, Counters()) as outbox:
        put(outbox, *(f"e{n}" for n in range(200)))
    if damage == "garbage":
        path.write_bytes(b"no database " * 1000)
    elif damage == "middle":
        whole = bytearray(path.read_bytes())
        whole[4096:16384] = b"\xff" * 12288
        path.write_bytes(whole)
    else:
        database = sqlite3.connect(path)
        database.execute("PRAGMA user_version = 99")
        database.close()
    counters = Counters()
    with Outbox(path, counters) as outbox:
        put(outbox, "after")
        assert outbox.flush()
        assert ids(outbox)[-1] == "after"
        assert ("e0" in ids(outbox), "e199" in ids(outbox)) == KEPT[damage]
        assert "outbox.sqlite.damaged" in outbox.problem
    assert counters.total("outbox_damaged") == 1
    assert path.with_name("outbox.sqlite.damaged").exists()
    assert "outbox.sqlite.damaged" in caplog.text


def test_second_process_is_locked_out(path):
    with Outbox(path, Counters()), pytest.raises(OutboxError, match="open in another process"):
        Outbox(path, Counters())


def test_new_file_is_named_on_disk_before_it_counts(path, monkeypatch):
    """Else a power cut may take the name of the file, and every message in it; a failing disk is no crash."""
    flushed = []
    monkeypatch.setattr("edge.messaging.outbox_file.fsync_folder", flushed.append)
    with Outbox(path, Counters()):
        assert flushed == [path.parent]

    def fail(_):
        raise OSError(5, "Input/output error")

    monkeypatch.setattr("edge.messaging.outbox_file.fsync_folder", fail)
    with Outbox(path, Counters()) as outbox:
        assert "disk error (Input/output error); events wait in memory" in outbox.problem


def test_impossible_folder_means_memory(tmp_path):
    (tmp_path / "file").touch()
    counters = Counters()
    with Outbox(tmp_path / "file" / "outbox.sqlite", counters) as outbox:
        put(outbox, "a")
        assert ids(outbox) == ["a"]
        assert "events wait in memory" in outbox.problem
    assert counters.total("outbox_dropped", reason="closed") == 1


def damage_folder(path, rng):
    path.unlink()
    path.mkdir()
    (path / "something").touch()


def damage_pipe(path, rng):
    path.unlink()
    os.mkfifo(path)


def damage_log_folder(path, rng):
    path.with_name(path.name + "-wal").mkdir()


def run_sql(path, statement):
    with contextlib.closing(sqlite3.connect(path)) as database, database:
        database.executescript(statement)


def damage_page(path, rng):
    whole = bytearray(path.read_bytes())
    start = rng.randrange(1, len(whole) // 4096) * 4096
    whole[start : start + 4096] = rng.randbytes(4096)
    path.write_bytes(whole)


def damage_cut(path, rng):
    path.write_bytes(path.read_bytes()[: rng.randrange(100, path.stat().st_size)])


def damage_empty(path, rng):
    path.write_bytes(b"")


def damage_random(path, rng):
    path.write_bytes(rng.randbytes(5000))


# damage, by a function or by SQL, and how many of 200 messages must be kept; a page holds about ten
DAMAGES = [
    (damage_folder, 0),
    (damage_pipe, 0),
    (damage_log_folder, 200),
    ("UPDATE message SET topic = CAST(x'ff00fe' AS TEXT) WHERE event_id = 'e7'", 199),
    ("UPDATE message SET payload = 'text' WHERE event_id = 'e7'", 199),
    ("UPDATE message SET sequence = 9223372036854775807 WHERE event_id = 'e7'", 199),
    ("DELETE FROM total", 200),
    ("ALTER TABLE message RENAME TO other; CREATE VIEW message AS SELECT * FROM other", 0),
    (damage_empty, 0),
    (damage_random, 0),
    *[(damage_page, 0)] * 10,
    *[(damage_cut, 0)] * 10,
]


@pytest.mark.parametrize(("damage", "least"), DAMAGES)
def test_damaged_outbox_starts_and_keeps_what_can_be_read(path, damage, least, request):
    with Outbox(path, Counters()) as outbox:
        put(outbox, *(f"e{n}" for n in range(200)))
    run_sql(path, damage) if isinstance(damage, str) else damage(path, random.Random(request.node.name))
    counters = Counters()
    with Outbox(path, counters) as outbox:
        put(outbox, "after")
        assert outbox.flush()
        found = ids(outbox)
        assert found[-1] == "after"
        assert found[:-1] == sorted(found[:-1], key=lambda name: int(name[1:]))
        assert len(found) - 1 >= least
        assert outbox.depth()[0] == len(found)
    assert counters.total("outbox_salvaged") >= (len(found) - 1 if counters.total("outbox_damaged") else 0)
    with Outbox(path, Counters()) as outbox:
        assert ids(outbox) == found
        assert outbox.problem is None


def test_most_of_a_file_with_one_bad_page_is_kept(path):
    with Outbox(path, Counters()) as outbox:
        put(outbox, *(f"e{n}" for n in range(500)), payload=b"x" * 700)
    whole = bytearray(path.read_bytes())
    kept = []
    for page in range(30, 40):
        path.write_bytes(whole[: page * 4096] + b"\xaa" * 4096 + whole[page * 4096 + 4096 :])
        with Outbox(path, Counters()) as outbox:
            kept.append(len(ids(outbox)))
    assert sorted(kept)[5] > 480


def test_folder_that_cannot_be_entered_does_not_stop_the_start(path):
    program = """
import os, pathlib, sys
from edge.messaging.outbox import Outbox
from edge.telemetry.counters import Counters
if os.geteuid() == 0:  # whom no mode keeps out
    os.setuid(65534)
with Outbox(pathlib.Path(sys.argv[1]), Counters()) as outbox:
    print(outbox.problem)
"""
    path.parent.mkdir(exist_ok=True)
    path.parent.chmod(0)
    command = [sys.executable, "-c", program, str(path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600, check=False)
    assert "no permission to write; give the folder to the user of `edge`" in done.stdout, done.stderr


def test_file_of_another_user_is_set_aside():
    """Root ran `edge` once; now its own user cannot write the file."""
    program = """
import os, pathlib, sys
from edge.messaging.outbox import Outbox
from edge.telemetry.counters import Counters
counters = Counters()
os.setuid(65534)
with Outbox(pathlib.Path(sys.argv[1]), counters) as outbox:
    outbox.put('t', b'x', 1, 'a')
    print(outbox.flush(), counters.total('outbox_damaged'), outbox.problem)
"""
    if os.geteuid() != 0:
        pytest.skip("needs root, to own a file that another user cannot write")
    with tempfile.TemporaryDirectory() as folder:  # the folders of pytest are private
        Path(folder).chmod(0o777)
        path = Path(folder) / "outbox.sqlite"
        with Outbox(path, Counters()) as outbox:
            put(outbox, "root's")
        path.chmod(0o600)
        command = [sys.executable, "-c", program, str(path)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=600, check=False)
    assert done.stdout.startswith("True 1 "), done.stderr
    assert "no permission to write; moved to outbox.sqlite.damaged, 0 messages were kept" in done.stdout


def test_file_that_appears_late_loses_nothing(path):
    """As on a disk that is mounted only after the start."""
    with Outbox(path, Counters()) as outbox:
        put(outbox, *(f"old{n}" for n in range(5)))
    hidden = path.parent.with_name("hidden")
    path.parent.rename(hidden)
    path.parent.touch()  # a file where the folder should be
    with Outbox(path, Counters()) as outbox:
        put(outbox, *(f"new{n}" for n in range(9)))
        outbox.acknowledge(["new0"])
        assert "events wait in memory" in outbox.problem
        path.parent.unlink()
        hidden.rename(path.parent)
        assert outbox.flush(10.0)
        assert ids(outbox) == [*(f"old{n}" for n in range(5)), *(f"new{n}" for n in range(1, 9))]
        put(outbox, "last")
        assert outbox.flush()
        assert ids(outbox)[-1] == "last"
        assert outbox.problem is None
        assert outbox.openings == 1


@pytest.mark.parametrize("stored", [False, True])
def test_message_set_aside_is_kept_by_name_and_not_sent_again(path, stored):
    with Outbox(path, Counters()) as outbox:
        put(outbox, "a", "b")
        if stored:
            outbox.flush()
        outbox.set_aside(outbox.pending(1)[0], "too long")
        assert ids(outbox) == ["b"]
        assert outbox.flush()
        assert ids(outbox) == ["b"]
        assert outbox.depth()[0] == 1
    with Outbox(path, Counters()) as outbox:
        assert ids(outbox) == ["b"]
        assert list(map(str, outbox.newest_set_aside())) == ["event a on t/events, 100 bytes: too long"]
        with pytest.raises(OutboxError, match="a running device names the latest"):
            read_set_aside(path)
    assert list(map(str, read_set_aside(path))) == ["event a on t/events, 100 bytes: too long"]
    with contextlib.closing(sqlite3.connect(path)) as database:
        assert database.execute("SELECT event_id, payload FROM set_aside").fetchall() == [("a", b"x" * 100)]


def test_messages_set_aside_are_bounded_and_counted(path):
    counters = Counters()
    with Outbox(path, counters) as outbox:
        put(outbox, *(f"e{n}" for n in range(230)))
        for message in outbox.pending(230):
            outbox.set_aside(message, "too long")
        assert outbox.flush()
        assert len(outbox.newest_set_aside()) == 20
    assert counters.total("outbox_dropped", reason="set_aside") == 30


def test_committed_messages_survive_a_kill(path):
    program = (
        "import sys, time, pathlib\n"
        "from edge.messaging.outbox import Outbox; from edge.telemetry.counters import Counters\n"
        "outbox = Outbox(pathlib.Path(sys.argv[1]), Counters())\n"
        "for n in range(500): outbox.put('t/events', b'x' * 700, 1, f'e{n}')\n"
        "outbox.flush(); print('committed', flush=True); time.sleep(60)\n"
    )
    child = subprocess.Popen([sys.executable, "-c", program, str(path)], stdout=subprocess.PIPE)
    assert child.stdout.readline() == b"committed\n"
    child.kill()
    assert child.wait() == -signal.SIGKILL
    child.stdout.close()
    with Outbox(path, Counters()) as outbox:
        assert ids(outbox) == [f"e{n}" for n in range(500)]


def test_no_stored_event_is_lost_in_200_kills(path):
    kills = [sys.executable, Path(__file__).with_name("outbox_kills.py"), path, "200", "1"]
    done = subprocess.run(list(map(str, kills)), capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert (report["lost"], report["doubled"]) == ([], 0)
    assert report["stored"] > 400, report
    assert report["delivered"] > 200, report
    assert report["died_midway"] > 3, report  # between two reports, where losses would happen


def test_messages_wait_in_memory_while_the_disk_is_full(path):
    """A file size limit stands in for a full disk: the same error, without filling a real disk."""
    program = """
import pathlib, resource, sys
from edge.telemetry.counters import Counters
from edge.messaging.outbox import Outbox
counters = Counters()
outbox = Outbox(pathlib.Path(sys.argv[1]), counters)
outbox.put('t', b'x', 1, 'before'); assert outbox.flush()
resource.setrlimit(resource.RLIMIT_FSIZE, (65536, resource.RLIM_INFINITY))
for n in range(200): outbox.put('t', b'x' * 1000, 1, f'e{n}')
assert not outbox.flush(3.0)
assert len(outbox.pending(1000)) >= 200, len(outbox.pending(1000))
outbox.acknowledge(['e0']); assert 'e0' not in [m.event_id for m in outbox.pending(1000)]
assert counters.total('outbox_disk_errors') >= 1 and counters.total('outbox_dropped') == 0
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY,) * 2)
assert outbox.flush(5.0)
assert [m.event_id for m in outbox.pending(1000)] == ['before'] + [f'e{n}' for n in range(1, 200)]
outbox.close()
print(counters.total('outbox_disk_errors'))
"""
    child = subprocess.run(
        [sys.executable, "-c", program, str(path)], capture_output=True, text=True, timeout=600, check=False
    )
    assert child.returncode == 0, child.stderr
    assert int(child.stdout) >= 1


def test_disk_that_fails_from_the_start_counts_every_loss(path):
    program = """
import pathlib, resource, sys
from edge.telemetry.counters import Counters
from edge.messaging.outbox import Outbox
resource.setrlimit(resource.RLIMIT_FSIZE, (0, resource.RLIM_INFINITY))
counters = Counters()
outbox = Outbox(pathlib.Path(sys.argv[1]), counters, max_memory_bytes=100_000)
for n in range(200): outbox.put('t', b'x' * 1000, n % 2, f'e{n}')
assert not outbox.flush(3.0)
waiting = len(outbox.pending(1000))
assert 0 < waiting < 200 and waiting + counters.total('outbox_dropped', reason='memory') == 200
assert counters.total('outbox_dropped', priority='0') == 100  # updates first
assert counters.total('outbox_disk_errors') >= 1
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY,) * 2)
assert outbox.flush(5.0)
assert counters.total('outbox_stored') == waiting
outbox.close()
"""
    child = subprocess.run(
        [sys.executable, "-c", program, str(path)], capture_output=True, text=True, timeout=600, check=False
    )
    assert child.returncode == 0, child.stderr


def test_listener_is_called_on_every_put(path):
    calls = []
    with Outbox(path, Counters()) as outbox:
        outbox.set_listener(lambda: calls.append(outbox.last_sequence))
        put(outbox, "a", "b")
    assert calls == [1, 2]


@settings(derandomize=True, max_examples=50, deadline=None)
@given(st.sampled_from([b"", SQLITE_HEADER[:16], SQLITE_HEADER]), st.binary(max_size=300))
def test_outbox_starts_on_any_bytes(header, content):
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "outbox.sqlite"
        path.write_bytes(header + content)
        with Outbox(path, Counters(), commit_interval_s=0.0) as outbox:
            put(outbox, "after")
            assert outbox.flush()
            assert ids(outbox) == ["after"]
