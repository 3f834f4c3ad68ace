"""Files for installing: the containers' and compose's name files that exist, and scripts wait for apt."""

from __future__ import annotations

import fcntl
import os
import re
import stat
import subprocess
from pathlib import Path

import pytest
import yaml

from edge.config.yaml_file import load_config

ROOT = Path(__file__).parents[1]
PACKAGING = ROOT / "packaging"
COMPOSE = yaml.safe_load((PACKAGING / "compose.yaml").read_text(encoding="utf-8"))


def test_compose_builds_from_files_that_exist():
    builds = [service["build"] for service in COMPOSE["services"].values() if "build" in service]
    assert {build["dockerfile"] for build in builds} == {
        f"packaging/{path.name}" for path in PACKAGING.glob("*.Dockerfile")
    }
    assert {(PACKAGING / build["context"]).resolve() for build in builds} == {ROOT}


def test_compose_mounts_files_that_exist_and_declared_volumes():
    mounts = [volume.split(":")[0] for service in COMPOSE["services"].values() for volume in service.get("volumes", ())]
    files = {mount for mount in mounts if mount.startswith(".")}
    assert {(PACKAGING / file).is_file() for file in files} == {True}
    assert set(mounts) - files == COMPOSE["volumes"].keys()


def test_compose_publishes_the_open_broker_on_this_machine_only():
    assert all(port.startswith("127.0.0.1:") for port in COMPOSE["services"]["mosquitto"]["ports"])


def test_device_of_compose_speaks_to_its_broker():
    config = load_config(PACKAGING / "device.yaml", {})
    assert config.mqtt is not None
    assert config.mqtt.host in COMPOSE["services"]
    assert config.health is not None  # for the health check


@pytest.mark.parametrize("file", sorted(PACKAGING.glob("*.Dockerfile")), ids=lambda path: path.name)
def test_dockerfile_calls_scripts_that_can_be_run(file):
    called = re.findall(r"(?<![\w.])/?(scripts/[a-z-]+)", file.read_text(encoding="utf-8"))
    assert called
    assert all((ROOT / name).stat().st_mode & stat.S_IXUSR for name in called)


@pytest.mark.parametrize("unit", sorted((ROOT / "systemd").glob("*.service")), ids=lambda path: path.name)
def test_unit_starts_a_command_by_its_path(unit):
    starts = re.findall(r"^Exec\w+=(\S+)", unit.read_text(encoding="utf-8"), flags=re.MULTILINE)
    assert all(start.startswith("/opt/finesight/bin/edge") or start == "/bin/sh" for start in starts)
    assert any(start.startswith("/opt/finesight") for start in starts)


@pytest.fixture
def apt(tmp_path) -> dict[str, str]:
    """An environment whose apt-get needs a lock for its lists, as the real one does, and notes its arguments."""
    programs = {
        "dpkg-query": 'test "$4" = present && echo "install ok installed"',
        "id": "echo 0",
        "apt-get": f"""
if [ "$1" = update ]; then
    flock -n {tmp_path}/lists true || {{ echo "E: Could not get lock /var/lib/apt/lists/lock"; exit 100; }}
fi
echo "$@" >> {tmp_path}/calls""",
    }
    for name, body in programs.items():
        path = tmp_path / "bin" / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(f"#!/bin/sh\n{body}\n", encoding="utf-8")
        path.chmod(0o755)
    return os.environ | {"PATH": f"{tmp_path}/bin:{os.environ['PATH']}"}


def apt_install(environment: dict[str, str], *packages: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [ROOT / "scripts/apt-install", *packages],
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_apt_installs_only_what_is_missing_and_says_so(apt, tmp_path):
    done = apt_install(apt, "present", "absent")
    assert (done.returncode, done.stdout) == (0, "installing system packages: absent\n")
    assert (tmp_path / "calls").read_text().splitlines() == [
        "update -qq",
        "-o DPkg::Lock::Timeout=600 -qq install -y --no-install-recommends absent",
    ]


def test_nothing_missing_calls_no_apt(apt, tmp_path):
    assert apt_install(apt, "present").stdout == ""
    assert not (tmp_path / "calls").exists()


def test_apt_waits_for_another_program(apt, tmp_path):
    with (tmp_path / "lists").open("w") as lists:
        fcntl.flock(lists, fcntl.LOCK_EX)
        words = [ROOT / "scripts/apt-install", "absent"]
        with subprocess.Popen(words, env=apt, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as waiting:
            assert waiting.stdout.readline().startswith("installing")
            assert waiting.stdout.readline() == "waiting for another program that uses apt, for at most 600 s\n"
            fcntl.flock(lists, fcntl.LOCK_UN)
            assert waiting.wait(30) == 0


def test_apt_gives_up_in_the_end_and_says_why(apt, tmp_path):
    with (tmp_path / "lists").open("w") as lists:
        fcntl.flock(lists, fcntl.LOCK_EX)
        done = apt_install(apt | {"APT_LOCK_WAIT_S": "0"}, "absent")
    assert done.returncode == 1
    assert "Could not get lock" in done.stderr
