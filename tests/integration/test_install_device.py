"""A clean Debian: the device's Dockerfile step by step, and `install-device` with the units of systemd."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration import dockerfile

ROOT = Path(__file__).parents[2]
INSTALL = ROOT / "scripts/install-device"
SHIPPED = "/opt/finesight/share/finesight"
UNITS = ("edge.service", "edge-sync-agent.service")

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(os.geteuid() != 0, reason="makes a file tree of Debian, which needs root"),
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("debian")
    yield folder
    mounts = Path("/proc/mounts").read_text(encoding="utf-8")
    assert str(folder) not in mounts
    subprocess.run(["rm", "-rf", folder], check=True)  # in half the time of shutil.rmtree


@pytest.fixture(scope="module")
def debian(folder) -> Path:
    return dockerfile.debootstrap(folder / "debian", "systemd")


@pytest.fixture(scope="module")
def image(debian, folder) -> dockerfile.Stage:
    """The device's image."""
    return dockerfile.build(ROOT / "packaging/device.Dockerfile", ROOT, debian, folder)


@pytest.fixture(scope="module")
def device(debian, image, folder) -> Path:
    """A clean Debian after `install-device`, from the wheels of the image's first stage."""
    root = dockerfile.copy_tree(debian, folder / "device")
    done = install(root, "--wheels", folder / "stage0/wheels")
    assert done.returncode == 0, done.stdout
    return root


@pytest.fixture(scope="module")
def enrolment(folder) -> Path:
    """The enrolment file of one device."""
    repo, made = folder / "repo", folder / "enrolments"
    create = ["init", repo, "--line", "shop", "--development"]
    new = ["enrolment", "new", repo, "--url", "https://updates.example.net/shop", "-o", made, "--device", "cam-1"]
    for arguments in (create, new):
        command = [sys.executable, "-m", "gallery_sync.cli", *map(str, arguments)]
        subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
    (file,) = made.rglob("cam-1*.json")
    return file


def install(root: Path, *arguments: object) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"PATH": dockerfile.PATH}
    certificates = {"PIP_CERT": "/host-certificates.crt", "SSL_CERT_FILE": "/host-certificates.crt"}
    environment |= certificates if (root / "host-certificates.crt").exists() else {}
    words = [INSTALL, "--root", root, *arguments]
    return subprocess.run(
        words, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=1500, check=False
    )


def test_image_runs_the_device_as_its_user(image):
    assert image.command == ["edge", "run", "--safe"]
    assert image.user == "finesight"
    done = dockerfile.run(image.root, "id -un && edge doctor", user="finesight", folder=image.folder)
    assert done.returncode == 0, done.stdout
    assert done.stdout.startswith("finesight\n")
    assert "good  engine onnxruntime" in done.stdout


def test_image_holds_neither_compiler_nor_wheels(image):
    assert not (image.root / "usr/bin/g++").exists()
    assert not (image.root / "wheels").exists()
    assert not (image.root / "etc/systemd/system/edge.service").exists()


def test_pair_of_the_documents_makes_the_doctor_content(image):
    pair = f"{SHIPPED}/demo/bundle --gallery {SHIPPED}/demo/gallery"
    config = "/var/lib/finesight/device.yaml"
    (image.root / config[1:]).write_text(f"cameras: {{shelf: {{source: 'file://{SHIPPED}/demo/stream.mp4'}}}}\n")
    (image.root / config[1:]).chmod(0o644)
    command = f"edge bundle install {pair} && edge bundle activate && edge doctor -c {config} && edge check -c {config}"
    done = dockerfile.run(image.root, command, user="finesight", folder=image.folder)
    assert done.returncode == 0, done.stdout
    assert "good  bundle: demo-1" in done.stdout
    assert "\nbad " not in done.stdout


def test_units_verify_and_name_a_command_that_runs(device):
    done = dockerfile.run(device, f"systemd-analyze verify {' '.join('/etc/systemd/system/' + unit for unit in UNITS)}")
    assert (done.returncode, done.stdout) == (0, "")
    text = (device / "etc/systemd/system/edge.service").read_text(encoding="utf-8")
    command = next(line for line in text.splitlines() if line.startswith("ExecStart=")).removeprefix("ExecStart=")
    assert dockerfile.run(device, f"{command.split()[0]} --version", user="finesight").stdout.startswith("finesight ")


def test_services_start_at_boot_and_the_agent_only_when_enrolled(device):
    wants = device / "etc/systemd/system/multi-user.target.wants"
    assert all((wants / unit).is_symlink() for unit in UNITS)
    unit = (device / "etc/systemd/system/edge-sync-agent.service").read_text(encoding="utf-8")
    assert "\nConditionPathExists=/var/lib/finesight/enrolment.json\n" in unit
    assert not (device / "var/lib/finesight/enrolment.json").exists()


def test_device_is_enrolled_as_its_user(device, folder, enrolment):
    done = install(device, "--wheels", folder / "stage0/wheels", "--enrol", enrolment)
    assert done.returncode == 0, done.stdout
    state = "/var/lib/finesight"
    done = dockerfile.run(device, f"stat -c '%U:%G %n' {state}/enrolment.json {state}/trust/root; ls -A {state}")
    assert done.stdout.splitlines()[:2] == [
        f"finesight:finesight {state}/enrolment.json",
        f"finesight:finesight {state}/trust/root",
    ]
    assert ".enrolment" not in done.stdout
    (device / f"{state[1:]}/enrolment.json").unlink()


def test_units_of_an_older_version_are_removed(device, folder):
    system = device / "etc/systemd/system"
    (system / "timers.target.wants").mkdir(exist_ok=True)
    (system / "edge-sync.timer").write_text("[Timer]\n")
    (system / "timers.target.wants/edge-sync.timer").symlink_to("../edge-sync.timer")
    assert install(device, "--wheels", folder / "stage0/wheels").returncode == 0
    assert list(system.rglob("edge-sync.timer")) == []


def test_repository_without_signatures_is_refused(device):
    done = install(device, "--repository", "https://updates.example.net/shop")
    assert done.returncode == 2
    assert "enrol the device with --enrol FILE" in done.stdout


def test_folders_have_their_owners_and_modes(device):
    done = dockerfile.run(
        device,
        "stat -c '%U:%G %a %n' /var/lib/finesight /etc/finesight /etc/finesight/device.yaml /etc/finesight/edge.env",
    )
    assert done.stdout.splitlines() == [
        "finesight:finesight 750 /var/lib/finesight",
        "root:finesight 750 /etc/finesight",
        "root:finesight 640 /etc/finesight/device.yaml",
        "root:root 600 /etc/finesight/edge.env",
    ]
    assert stat.S_IMODE((device / "opt/finesight").stat().st_mode) == 0o755


def test_second_run_keeps_what_the_operator_wrote(device, folder):
    written = {"etc/finesight/device.yaml": "cameras: {}\n", "etc/finesight/edge.env": "A=1\n"}
    for name, text in written.items():
        (device / name).write_text(text, encoding="utf-8")
    done = install(device, "--wheels", folder / "stage0/wheels")
    assert done.returncode == 0, done.stdout
    assert {name: (device / name).read_text(encoding="utf-8") for name in written} == written


def test_foreign_folder_is_not_taken_for_the_environment(device, folder):
    (device / "opt/other").mkdir()
    (device / "opt/other/file").write_text("mine")
    done = install(device, "--wheels", folder / "stage0/wheels", "--prefix", "/opt/other")
    assert done.returncode == 1
    assert "/opt/other: is not empty and was not made by this script" in done.stdout
    assert install(device, "--uninstall", "--prefix", "/opt/other").returncode == 0
    assert (device / "opt/other/file").read_text() == "mine"


def test_other_prefix_is_in_the_units(device, folder):
    done = install(device, "--wheels", folder / "stage0/wheels", "--prefix", "/srv/fine", "--extras", "")
    assert done.returncode == 0, done.stdout
    text = (device / "etc/systemd/system/edge.service").read_text(encoding="utf-8")
    assert "ExecStart=/srv/fine/bin/edge run" in text
    assert dockerfile.run(device, "readlink /usr/local/bin/edge").stdout == "/srv/fine/bin/edge\n"
    assert dockerfile.run(device, "edge --version").returncode == 0


def test_uninstall_keeps_configuration_and_purge_does_not(device, folder):
    assert install(device, "--wheels", folder / "stage0/wheels").returncode == 0  # it comes after other tests
    assert install(device, "--uninstall").returncode == 0
    assert not (device / "opt/finesight").exists()
    assert not os.path.lexists(device / "usr/local/bin/edge")
    assert [unit for unit in UNITS if list((device / "etc/systemd").rglob(unit))] == []
    assert (device / "etc/finesight/device.yaml").exists()
    assert install(device, "--uninstall", "--purge").returncode == 0
    assert not (device / "etc/finesight").exists()
    assert not (device / "var/lib/finesight").exists()
    assert "finesight" not in (device / "etc/passwd").read_text(encoding="utf-8")
