"""Jobs: queued, run, stopped, resumed, and found again by a later console."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

import pytest

from console.settings import Settings
from console.storage.database import open_database
from console.tables import TABLES
from console.training.job import update_row
from console.training.jobs import Jobs
from console.training.processes import EXIT, PROCESS, is_alive, read_process
from edge.errors import ConsoleError
from tests.waiting import DEADLINE_S, until

ROOT = Path(__file__).parents[3]


@contextmanager
def open_jobs(folder, *, acts=None, **options):
    """The jobs of a console with its data in a folder."""
    settings = Settings(Path(folder))
    database = open_database(settings.data, TABLES)
    jobs = Jobs(settings, database, **options)
    for kind, act in (acts or {}).items():
        jobs.when_done(kind, act)
    jobs.run()
    try:
        yield jobs
    finally:
        jobs.close()
        database.close()


def python(code):
    return [sys.executable, "-c", code]


def until_file(path):
    """Code of a child that waits until a file is there."""
    return f"import os, time\nwhile not os.path.exists({str(path)!r}): time.sleep(0.01)\n"


def audited(jobs):
    with jobs._database.read() as rows:
        return [(row["action"], row["by"]) for row in rows.execute("SELECT * FROM audit ORDER BY id")]


def test_job_runs_in_its_folder_and_keeps_what_it_printed(tmp_path):
    with open_jobs(tmp_path) as jobs:
        code = "import sys; open('made', 'w').write('x'); print('to stdout'); print('to stderr', file=sys.stderr)"
        job = jobs.wait(jobs.start("recipe", "A try", python(code), "ann", about={"set": 3}).id, DEADLINE_S)
        assert (job.state, job.exit_code, job.progress, job.about) == ("done", 0, 1.0, {"set": 3})
        assert job.folder == tmp_path / "runs" / str(job.id)
        assert (job.folder / "made").read_text() == "x"
        assert jobs.log_tail(job.id).splitlines() == ["to stdout", "to stderr"]
        assert audited(jobs) == [("job.start", "ann")]


def test_failed_job_says_its_last_line(tmp_path):
    with open_jobs(tmp_path) as jobs:
        code = "import sys; sys.exit('edge-train: no photos')"
        job = jobs.wait(jobs.start("learn", "x", python(code), "ann").id, DEADLINE_S)
        assert (job.state, job.exit_code, job.says) == ("failed", 1, "edge-train: no photos")


def test_missing_program_fails(tmp_path):
    with open_jobs(tmp_path) as jobs:
        job = jobs.wait(jobs.start("learn", "x", ["no-such-program"], "ann").id, DEADLINE_S)
        assert (job.state, job.exit_code) == ("failed", 127)
        assert "no-such-program: cannot be started" in job.says


def test_heavy_jobs_wait_for_each_other_and_light_ones_do_not(tmp_path):
    with open_jobs(tmp_path) as jobs:
        go = tmp_path / "go"
        first = jobs.start("learn", "first", python(until_file(go)), "ann")
        second = jobs.start("learn", "second", python("pass"), "ann")
        light = jobs.wait(jobs.start("publish", "light", python("pass"), "ann", heavy=False).id, DEADLINE_S)
        assert light.state == "done"
        assert (jobs.find(first.id).state, jobs.find(second.id).state) == ("running", "queued")
        go.touch()
        assert jobs.wait(second.id, DEADLINE_S).state == "done"
        assert jobs.find(first.id).ended_at <= jobs.find(second.id).ended_at


def test_stopped_job_can_be_resumed(tmp_path):
    with open_jobs(tmp_path) as jobs:
        code = (
            "import os, time\n"
            "if os.path.exists('checkpoint'): print('went on'); raise SystemExit\n"
            "open('checkpoint', 'w').close()\n"
            "while True: time.sleep(0.01)\n"
        )
        job = jobs.start("learn", "x", python(code), "ann")
        until((job.folder / "checkpoint").exists, "there is a checkpoint")
        jobs.stop(job.id, "ann")
        stopped = jobs.wait(job.id, DEADLINE_S)
        assert (stopped.state, stopped.exit_code) == ("stopped", -signal.SIGINT)
        jobs.resume(job.id, "bob")
        assert jobs.wait(job.id, DEADLINE_S).state == "done"
        assert jobs.log_tail(job.id).splitlines()[-1] == "went on"
        assert audited(jobs)[1:] == [("job.stop", "ann"), ("job.resume", "bob")]


def test_job_that_ignores_signals_is_killed(tmp_path):
    with open_jobs(tmp_path, grace_s=0.0) as jobs:
        code = (
            "import signal, time\n"
            "for one in (signal.SIGINT, signal.SIGTERM): signal.signal(one, signal.SIG_IGN)\n"
            "open('deaf', 'w').close()\n"
            "while True: time.sleep(0.01)\n"
        )
        job = jobs.start("learn", "x", python(code), "ann")
        until((job.folder / "deaf").exists, "the child ignores the signal")
        jobs.stop(job.id)
        assert jobs.wait(job.id, DEADLINE_S).state == "stopped"


def test_queued_job_is_stopped_before_it_begins(tmp_path):
    with open_jobs(tmp_path) as jobs:
        go = tmp_path / "go"
        jobs.start("learn", "first", python(until_file(go)), "ann")
        second = jobs.start("learn", "second", python("open('ran', 'w')"), "ann")
        jobs.stop(second.id)
        go.touch()
        assert jobs.find(second.id).state == "stopped"
        with pytest.raises(ConsoleError, match="has ended"):
            jobs.stop(second.id)
        assert not (second.folder / "ran").exists()


def test_job_outlives_the_console(tmp_path):
    """The console ends in the middle of a training, and a later one sees it through."""
    go, told = tmp_path / "go", []
    with open_jobs(tmp_path) as jobs:
        job = jobs.start("learn", "x", python(until_file(go) + "print('the end')"), "ann")
        until(lambda: read_process(jobs.home(job.id)) is not None, "the process is noted")
    with open_jobs(tmp_path, acts={"learn": told.append}) as jobs:
        assert jobs.find(job.id).state == "running"
        go.touch()
        assert jobs.wait(job.id, DEADLINE_S).state == "done"
        assert jobs.log_tail(job.id) == "the end\n"
        assert [one.id for one in told] == [job.id]


def test_console_killed_in_the_middle_of_a_training_loses_nothing(tmp_path):
    go = tmp_path / "go"
    code = (
        "import sys\nfrom tests.console.training.test_jobs import open_jobs, python, until_file\n"
        f"with open_jobs({str(tmp_path)!r}) as jobs:\n"
        f"    job = jobs.start('learn', 'x', python(until_file({str(go)!r}) + 'print(1)'), 'ann')\n"
        "    while jobs.find(job.id).state != 'running': pass  # its process may not have started yet\n"
        "    print(job.id, flush=True)\n    sys.stdin.read()\n"
    )
    console = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=ROOT)
    with console:
        job_id = int(console.stdout.readline())
        console.kill()
    with open_jobs(tmp_path) as jobs:
        assert jobs.find(job_id).state == "running"
        go.touch()
        assert jobs.wait(job_id, DEADLINE_S).state == "done"
        assert jobs.log_tail(job_id) == "1\n"


@pytest.mark.parametrize(("stop_at", "state", "log"), [(None, "done", "1\n1\n"), (5.0, "stopped", "1\n")])
def test_job_that_a_killed_console_never_started_runs_later(tmp_path, stop_at, state, log):
    with open_jobs(tmp_path) as jobs:
        job = jobs.wait(jobs.start("learn", "x", python("print(1)"), "ann").id, DEADLINE_S)
        for name in (PROCESS, EXIT):
            (jobs.home(job.id) / name).unlink()
        with jobs._database.write() as connection:
            update_row(connection, job.id, state="running", started_at=1.0, ended_at=None, stop_at=stop_at)
    with open_jobs(tmp_path) as jobs:
        assert jobs.wait(job.id, DEADLINE_S).state == state
        assert jobs.log_tail(job.id) == log


def test_job_that_ended_without_a_console_is_done(tmp_path):
    told = []
    with open_jobs(tmp_path) as jobs:
        go = tmp_path / "go"
        job = jobs.start("learn", "x", python(until_file(go)), "ann")
        home = jobs.home(job.id)
        until(lambda: read_process(home) is not None, "the process is noted")
    go.touch()
    until((home / "exit.json").exists, "the process has ended")
    with open_jobs(tmp_path, acts={"learn": told.append}) as jobs:
        ended = jobs.wait(job.id, DEADLINE_S)
        assert (ended.state, len(told)) == ("done", 1)
        assert ended.ended_at == json.loads((home / "exit.json").read_bytes())["ended_at"]


def test_restart_of_the_machine_interrupts_a_job(tmp_path):
    with open_jobs(tmp_path) as jobs:
        job = jobs.start("learn", "x", python(until_file(tmp_path / "never")), "ann")
        home = jobs.home(job.id)
        until(lambda: read_process(home) is not None, "the process is noted")
        process = read_process(home)
    os.killpg(process.pid, signal.SIGKILL)
    until(lambda: not is_alive(process), "the process has ended")
    found = json.loads((home / "process.json").read_bytes())
    (home / "process.json").write_text(json.dumps(found | {"boot": "an earlier one", "pid": os.getpid()}))
    with open_jobs(tmp_path) as jobs:
        ended = jobs.wait(job.id, DEADLINE_S)
        assert (ended.state, "machine was restarted" in ended.says) == ("interrupted", True)


def test_killed_process_interrupts_a_job(tmp_path):
    with open_jobs(tmp_path) as jobs:
        job = jobs.start("learn", "x", python("import os; os.kill(os.getppid(), 9); os.kill(os.getpid(), 9)"), "ann")
        ended = jobs.wait(job.id, DEADLINE_S)
        assert (ended.state, "killed" in ended.says) == ("interrupted", True)


def test_other_process_with_the_same_number_is_not_the_job(tmp_path):
    mine = json.dumps({"pid": os.getpid(), "start": 1, "boot": ""})
    (tmp_path / "process.json").write_text(mine)
    assert not is_alive(read_process(tmp_path))


def test_environment_of_a_job_holds_no_secrets(tmp_path):
    of_console = {
        "PATH": os.environ["PATH"], "FINESIGHT_FLEET_TOKEN": "secret", "FINESIGHT_KEYS": "/keys", "AWS_SECRET": "x",
        "SIGNING_KEY": "x", "LC_ALL": "C.UTF-8",
    }  # fmt: skip
    with open_jobs(tmp_path, environment=of_console) as jobs:
        code = "import json, os; print(json.dumps(sorted(os.environ)))"
        learn = jobs.wait(jobs.start("learn", "x", python(code), "ann").id, DEADLINE_S)
        publish = jobs.wait(jobs.start("publish", "x", python(code), "ann", heavy=False).id, DEADLINE_S)
        known = json.loads(jobs.log_tail(learn.id))
        assert {"PATH", "LC_ALL", "PYTHONUNBUFFERED"} <= set(known)
        assert not {"FINESIGHT_FLEET_TOKEN", "FINESIGHT_KEYS", "AWS_SECRET", "SIGNING_KEY"} & set(known)
        known = json.loads(jobs.log_tail(publish.id))
        assert "SIGNING_KEY" in known
        assert "FINESIGHT_FLEET_TOKEN" not in known


def test_error_of_what_follows_becomes_what_the_job_says(tmp_path):
    def act(job):
        raise ConsoleError("invalid", f"the boxes of job {job.id} cannot be read")

    with open_jobs(tmp_path, acts={"propose-boxes": act}) as jobs:
        job = jobs.wait(jobs.start("propose-boxes", "x", python("pass"), "ann").id, DEADLINE_S)
        assert (job.state, job.says) == ("done", f"the boxes of job {job.id} cannot be read")


def test_what_a_command_reads_is_prepared_in_its_folder(tmp_path):
    with open_jobs(tmp_path) as jobs:
        job = jobs.start(
            "learn", "x", python("print(open('index.csv').read())"), "ann",
            prepare=lambda folder: (folder / "index.csv").write_text("path"),
        )  # fmt: skip
        jobs.wait(job.id, DEADLINE_S)
        assert jobs.log_tail(job.id).strip() == "path"

        def fail(folder):
            raise ConsoleError("invalid", "no pictures")

        with pytest.raises(ConsoleError, match="no pictures"):
            jobs.start("learn", "x", python("pass"), "ann", prepare=fail)
        assert [one.id for one in jobs.listed()] == [job.id]
        assert [path.name for path in (tmp_path / "runs").iterdir()] == [str(job.id)]


def test_folder_that_no_job_has_is_left_alone(tmp_path):
    """Of a console that was killed while a job started, or whose database was restored from a backup."""
    left = tmp_path / "runs/1/model"
    left.mkdir(parents=True)
    with open_jobs(tmp_path) as jobs:
        assert jobs.start("learn", "x", python("pass"), "ann").id == 2
        assert left.is_dir()


def test_bundles_of_jobs_that_wait_have_different_numbers(tmp_path):
    with open_jobs(tmp_path) as jobs:
        numbers = [jobs.next_sequence(), jobs.next_sequence()]
        jobs.start("pack", "x", python("pass"), "ann", about={"sequence": 7})
    with open_jobs(tmp_path) as jobs:
        assert [*numbers, jobs.next_sequence()] == [1, 2, 8]


def test_deleting_a_job_deletes_its_folder(tmp_path):
    with open_jobs(tmp_path) as jobs:
        go = tmp_path / "go"
        job = jobs.start("learn", "x", python(until_file(go)), "ann")
        with pytest.raises(ConsoleError, match="stop it first"):
            jobs.delete(job.id)
        go.touch()
        jobs.wait(job.id, DEADLINE_S)
        jobs.delete(job.id, "ann")
        assert not job.folder.exists()
        with pytest.raises(ConsoleError, match="no job"):
            jobs.find(job.id)
        assert jobs.start("learn", "x", python("pass"), "ann").id > job.id
