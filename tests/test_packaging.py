"""Files for installing: containers and compose name files that exist; scripts wait for apt and show progress."""

from __future__ import annotations

import fcntl
import json
import os
import re
import shutil
import stat
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
import yaml

from console.options import build_parser as console_parser
from edge.config.yaml_file import load_config
from gallery_sync.cli import build_parser as sync_parser

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


def test_compose_with_home_assistant_mounts_a_device_file_that_exists():
    overlay = yaml.safe_load((PACKAGING / "home-assistant.compose.yaml").read_text(encoding="utf-8"))
    assert overlay["services"].keys() - COMPOSE["services"].keys() == {"homeassistant"}
    (mount,) = overlay["services"]["device"]["volumes"]
    source, target, _ = mount.split(":")
    assert target in {volume.split(":")[1] for volume in COMPOSE["services"]["device"]["volumes"]}
    config = load_config(PACKAGING / source, {})
    assert config.mqtt is not None
    assert config.mqtt.home_assistant is not None
    assert config.mqtt.host in COMPOSE["services"]
    assert all(port.startswith("127.0.0.1:") for port in overlay["services"]["homeassistant"]["ports"])


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


@pytest.mark.parametrize("unit", sorted((ROOT / "systemd").glob("edge-*.service")), ids=lambda path: path.name)
def test_command_of_a_unit_is_one_that_exists(unit):
    text = unit.read_text(encoding="utf-8")
    ((program, start),) = re.findall(r"^ExecStart=\S+/(edge-\w+) (.+)", text, flags=re.MULTILINE)
    parser = {"edge-sync": sync_parser, "edge-console": console_parser}[program]()
    filled = start.replace("${FINESIGHT_LISTEN}", "127.0.0.1:8090").replace("$FINESIGHT_CONSOLE", "--proxy-https")
    assert parser.parse_args(filled.split()).verb


def write_program(path: Path, body: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{body}\n", encoding="utf-8")
    path.chmod(0o755)


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
        write_program(tmp_path / "bin" / name, body)
    return os.environ | {"PATH": f"{tmp_path}/bin:{os.environ['PATH']}"}


def apt_install(environment: dict[str, str], *packages: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [ROOT / "scripts/apt-install", *packages],
        env=environment,
        capture_output=True,
        text=True,
        timeout=600,
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
            assert waiting.wait(60) == 0


def test_apt_gives_up_in_the_end_and_says_why(apt, tmp_path):
    with (tmp_path / "lists").open("w") as lists:
        fcntl.flock(lists, fcntl.LOCK_EX)
        done = apt_install(apt | {"APT_LOCK_WAIT_S": "0"}, "absent")
    assert done.returncode == 1
    assert "Could not get lock" in done.stderr


def torch_option(tmp_path: Path, **environment: str) -> str:
    """Return what scripts/torch-index prints on a machine of x86-64 without an NVIDIA GPU."""
    write_program(tmp_path / "bin/uname", "echo x86_64")
    for name in ("bash", "true", "false"):
        (tmp_path / "bin" / name).symlink_to(shutil.which(name))
    kept = {key: value for key, value in os.environ.items() if key != "FINESIGHT_TORCH_INDEX"}
    return subprocess.run(
        [ROOT / "scripts/torch-index"],
        env=kept | {"PATH": f"{tmp_path}/bin"} | environment,
        capture_output=True,
        text=True,
        timeout=600,
        check=True,
    ).stdout


def test_torch_for_the_cpu_is_chosen_where_its_index_answers(tmp_path):
    expected = "--extra-index-url https://download.pytorch.org/whl/cpu\n"
    assert torch_option(tmp_path / "answers", PYTHON="true") == expected
    assert torch_option(tmp_path / "does not", PYTHON="false") == ""


def test_torch_with_cuda_is_chosen_beside_a_gpu(tmp_path):
    write_program(tmp_path / "bin/nvidia-smi", "exit 0")
    assert torch_option(tmp_path, PYTHON="true") == ""


def test_index_of_torch_can_be_named(tmp_path):
    mirror = "https://mirror/cpu"
    assert torch_option(tmp_path / "a", FINESIGHT_TORCH_INDEX=mirror) == f"--extra-index-url {mirror}\n"
    assert torch_option(tmp_path / "b", FINESIGHT_TORCH_INDEX="", PYTHON="true") == ""


def test_pip_prefers_the_build_for_the_cpu_at_the_pinned_version(tmp_path):
    pinned = re.search(r"^torch==([\d.]+)", (ROOT / "constraints.txt").read_text(encoding="utf-8"), re.MULTILINE)[1]
    for version in (pinned, f"{pinned}+cpu", "99.0"):
        info = f"torch-{version}.dist-info"
        with zipfile.ZipFile(tmp_path / f"torch-{version}-py3-none-any.whl", "w") as wheel:
            wheel.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: torch\nVersion: {version}\n")
            wheel.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
            wheel.writestr(f"{info}/RECORD", "")
    words = [
        "install",
        "-q",
        "--dry-run",
        "--ignore-installed",
        "--no-index",
        "--find-links",
        tmp_path,
        "--report",
        "-",
    ]
    pip = [sys.executable, "-m", "pip", *words, "-c", ROOT / "constraints.txt", "torch"]
    done = subprocess.run(pip, capture_output=True, text=True, timeout=600, check=True)
    assert [one["metadata"]["version"] for one in json.loads(done.stdout)["install"]] == [f"{pinned}+cpu"]


PIP = """
echo "Collecting sphinx"
echo "  Downloading sphinx-9.0.4-py3-none-any.whl (3.9 MB)"
echo "  Downloading tiny-1.0-py3-none-any.whl (9 kB)"
echo "  Building wheel for hnswlib (pyproject.toml): started"
echo "  Building wheel for hnswlib (pyproject.toml): finished with status 'done'"
echo "Installing collected packages: a, b, c"
exit $PIP_ENDS_WITH
"""


def set_up(folder: Path, ends_with: int) -> subprocess.CompletedProcess[str]:
    for name in ("scripts/setup", "scripts/apt-install", "pyproject.toml", "constraints.txt"):
        (folder / name).parent.mkdir(exist_ok=True)
        shutil.copy2(ROOT / name, folder / name)
    write_program(folder / ".venv-docs/bin/python", PIP)
    return subprocess.run(
        [folder / "scripts/setup", "docs"],
        env=os.environ | {"PIP_ENDS_WITH": str(ends_with)},
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )


def test_setup_says_each_step_and_is_quick_the_second_time(tmp_path):
    done = set_up(tmp_path, ends_with=0)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [
        "setup: docs packages, 0.1 GB, less than a minute; step 1 of 3: environment .venv-docs",
        "setup: step 2 of 3: downloading",
        "  Downloading sphinx-9.0.4-py3-none-any.whl (3.9 MB)",
        "  Building wheel for hnswlib (pyproject.toml)",
        "setup: step 3 of 3: unpacking 3 packages into .venv-docs",
        "setup: done",
    ]
    assert set_up(tmp_path, ends_with=1).stdout == ""


def test_setup_that_failed_starts_again(tmp_path):
    assert set_up(tmp_path, ends_with=1).returncode == 1
    assert "step 1 of 3" in set_up(tmp_path, ends_with=0).stdout
