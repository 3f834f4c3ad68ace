"""The walls around a proof, and what it reports."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from edge.bundle import prove as prove_module
from edge.bundle import slots
from edge.bundle.bundle import read_bundle
from edge.bundle.child_process import socket_filter, system_calls
from edge.bundle.golden_probes import ProbeResult, check_latency
from edge.bundle.install import install_bundle, install_gallery
from edge.bundle.layout import gallery_folder, slot_folder
from edge.bundle.prove import ProofOptions, prover
from edge.errors import BundleError, GalleryError
from tests.store_samples import make_bundle, make_gallery, trusted

ROOT = Path(__file__).parents[3]
BUNDLE, GALLERY = ROOT / "demo/bundle", ROOT / "demo/gallery"
WALLED = """
import json, resource, socket, subprocess, sys, threading
from edge.bundle import child_process
how = sys.argv[1]
if how != "seccomp":
    child_process._filter_sockets = lambda libc: False
if how == "python":
    child_process._CLONE_NEWNET = child_process._CLONE_NEWUSER = -1
wall, refused = child_process.forbid_network(), []
def attempt():
    for family in (socket.AF_INET, socket.AF_INET6, socket.AF_NETLINK):
        try:
            socket.socket(family, socket.SOCK_DGRAM if family != socket.AF_NETLINK else socket.SOCK_RAW).connect(
                {socket.AF_INET: ("192.0.2.1", 9), socket.AF_INET6: ("2001:db8::1", 9)}.get(family, (0, 0))
            )
        except OSError as error:
            refused.append(family.name)
attempt()
thread = threading.Thread(target=attempt)
thread.start()
thread.join()
child_process.limit_cpu(2.0, cores=1)
socket.socketpair()
print(json.dumps([wall, sorted(set(refused)), resource.getrlimit(resource.RLIMIT_CPU)[0] <= 5]))
"""


@pytest.mark.parametrize("wall", ["seccomp", "namespace", "python"])
def test_child_has_no_network(wall):
    ended = subprocess.run([sys.executable, "-c", WALLED, wall], capture_output=True, check=False, cwd=ROOT)
    assert ended.returncode == 0, ended.stderr.decode()
    found, refused, is_limited = json.loads(ended.stdout)
    if found != wall:
        pytest.skip(f"this machine does not allow the wall {wall}")
    assert {"AF_INET", "AF_INET6"} <= set(refused)
    assert ("AF_NETLINK" in refused) == (wall != "namespace")
    assert is_limited


def test_system_calls_are_those_of_the_program_and_not_of_the_kernel():
    assert system_calls("x86_64", 2**63 - 1) == (0xC000003E, 41)
    assert system_calls("aarch64", 2**63 - 1) == (0xC00000B7, 198)
    assert system_calls("aarch64", 2**31 - 1) == (0x40000028, 281)
    assert (system_calls("x86_64", 2**31 - 1), system_calls("riscv64", 2**63 - 1)) == (None, None)


def test_filter_refuses_other_conventions_and_sockets_of_other_machines():
    def run(architecture: int, number: int, argument: int = 0) -> int:
        program, at, loaded = socket_filter(0xC000003E, 41), 0, 0
        while True:
            code, if_true, if_false, operand = program[at]
            at += 1
            if code == 0x06:
                return operand
            if code == 0x20:
                loaded = {0: number, 4: architecture, 16: argument}[operand]
            else:
                is_true = loaded == operand if code == 0x15 else loaded >= operand
                at += if_true if is_true else if_false

    allow, refuse = 0x7FFF0000, 0x00050061
    assert run(0xC000003E, 41, 2) == run(0xC000003E, 41, 10) == run(0xC000003E, 425) == refuse
    assert run(0x40000003, 102) == run(0xC000003E, 41 | 0x40000000, 2) == refuse
    assert run(0xC000003E, 41, 1) == run(0xC000003E, 0) == run(0xC000003E, 53, 1) == allow


def broken_demo(folder: Path) -> Path:
    """The demo's bundle with two wrong probes."""
    shutil.copytree(BUNDLE, folder)
    manifest = json.loads((folder / "bundle.json").read_text())
    for probe in manifest["probes"][:2]:
        probe["embedding_i8"] = [-one for one in probe["embedding_i8"]]
    (folder / "bundle.json").write_text(json.dumps(manifest))
    return folder


def test_all_failed_checks_are_reported(tmp_path):
    bundle, gallery = broken_demo(tmp_path / "bundle"), tmp_path / "gallery"
    shutil.copytree(GALLERY, gallery)
    (gallery / "gallery.json").write_text("{")
    probes = [probe.path for probe in read_bundle(bundle).manifest.probes[:2]]
    with pytest.raises(BundleError) as caught:
        prover(ProofOptions(memory_mib=1))(bundle, gallery)
    text = str(caught.value)
    assert text.startswith("3 checks failed: ")
    assert all(f"{probe}: FAILED" in text for probe in probes)
    assert "gallery.json" in text
    assert "MiB of memory with everything loaded, more than the 1 MiB that are allowed" in text


def test_error_of_a_gallery_alone_keeps_its_kind(tmp_path):
    (tmp_path / "gallery.json").write_text("{")
    with pytest.raises(GalleryError, match=r"gallery\.json"):
        prover()(BUNDLE, tmp_path)


def test_budget_of_the_manifest_refuses_what_is_too_slow(tmp_path):
    shutil.copytree(BUNDLE, tmp_path / "bundle")
    manifest = json.loads((tmp_path / "bundle" / "bundle.json").read_text())
    manifest["budget"] = {"p95_ms": 0.001, "memory_mib": 100_000}
    (tmp_path / "bundle" / "bundle.json").write_text(json.dumps(manifest))
    with pytest.raises(BundleError, match=r"a probe takes \d+\.\d ms .* more than the 0\.001 ms that are allowed"):
        prover()(tmp_path / "bundle", None)


def test_probes_that_were_slow_once_pass(monkeypatch):
    bundle = read_bundle(BUNDLE, verify=False)

    def results(ms: float) -> list[ProbeResult]:
        return [ProbeResult(probe, None, 1.0, ms) for probe in bundle.manifest.probes[:3]]

    again = iter([results(9.0), results(4.0)])
    monkeypatch.setattr("edge.bundle.golden_probes.run_all_probes", lambda *_: next(again))
    assert check_latency(bundle, None, results(10.0), 5.0) == 4.0


@pytest.fixture
def device(tmp_path: Path) -> Path:
    """A device with placeholder models, which no engine can load."""
    state_dir = tmp_path / "device"
    slot = install_bundle(make_bundle(tmp_path / "one", "one"), state_dir)
    slots.activate(state_dir, slot, install_gallery(make_gallery(tmp_path / "three"), state_dir), prove=trusted)
    return state_dir


def folders(device: Path, generation: str, slot: str = "a") -> tuple[Path, Path]:
    return slot_folder(device, slot), gallery_folder(device, generation)


@pytest.mark.parametrize("early", [False, True])
def test_another_gallery_for_the_active_bundle_is_proved_alone(device, tmp_path, early):
    generation = install_gallery(make_gallery(tmp_path / "four", 4), device)
    prove = prover(ProofOptions(cache=device / "cache"), device)
    if early:
        prove.start_early()
    assert prove(*folders(device, generation)) == []
    prove.close()


def test_models_are_tried_for_another_bundle_and_for_the_same_pair(device, tmp_path):
    prove = prover(state_dir=device)
    with pytest.raises(BundleError, match="no engine passed"):
        prove(*folders(device, next(path.name for path in (device / "gallery").iterdir())))
    slot = install_bundle(make_bundle(tmp_path / "two", "two", 2), device)
    with pytest.raises(BundleError, match="no engine passed"):
        prove(*folders(device, install_gallery(make_gallery(tmp_path / "four", 4), device), slot))


def test_models_are_tried_while_the_active_bundle_is_on_trial(device, tmp_path):
    active = install_gallery(make_gallery(tmp_path / "four", 4), device)
    slots.activate(device, "a", active, prove=trusted, trial="t-1")
    with pytest.raises(BundleError, match="no engine passed"):
        prover(state_dir=device)(*folders(device, install_gallery(make_gallery(tmp_path / "five", 5), device)))


def test_damaged_gallery_for_the_active_bundle_is_refused(device, tmp_path):
    generation = install_gallery(make_gallery(tmp_path / "four", 4), device)
    store = next(gallery_folder(device, generation).glob("*.sqlite*"))
    store.chmod(0o644)
    store.write_bytes(store.read_bytes()[:-100])
    with pytest.raises(GalleryError):
        prover(state_dir=device)(*folders(device, generation))


def test_bundle_that_was_just_proved_is_proved_by_its_next_gallery_alone(device, tmp_path, monkeypatch):
    """As after an urgent deletion that changes the staged gallery during the proof."""
    slot = install_bundle(make_bundle(tmp_path / "two", "two", 2), device)
    first, second = (install_gallery(make_gallery(tmp_path / f"g{items}", items), device) for items in (4, 5))
    prove, real, alone = prover(state_dir=device), prove_module.prove_bundle, []

    def good(bundle, gallery, options, *more):
        alone.append(options.gallery_only)
        return real(bundle, gallery, options, *more) if options.gallery_only else prove_module.Proof([], None)

    monkeypatch.setattr(prove_module, "prove_bundle", good)
    assert prove(*folders(device, first, slot)) == prove(*folders(device, second, slot)) == []
    install_bundle(make_bundle(tmp_path / "three", "three", 3), device)  # into the same slot
    prove(*folders(device, second, slot))
    assert alone == [False, True, False]


_NICE = """
import os, sys, threading, time
from edge.bundle.child_process import be_the_first_to_die, give_way
ended = threading.Event()
threading.Thread(target=ended.wait).start()
be_the_first_to_die(os.getppid(), float(sys.argv[1]))
found = [os.nice(0)]
until = time.process_time() + 2 * float(sys.argv[1])
while time.process_time() < until:
    pass
print(*found, *(os.getpriority(os.PRIO_PROCESS, int(task)) for task in os.listdir("/proc/self/task")))
ended.set()
"""


@pytest.mark.parametrize("full_speed_s", [0.0, 0.05])
def test_child_gives_way_at_once_or_after_a_little_processor_time(full_speed_s):
    nice = os.nice(0)
    code = [sys.executable, "-c", _NICE, str(full_speed_s)]
    done = subprocess.run(code, capture_output=True, text=True, check=True, cwd=ROOT)
    low = max(10, nice)
    assert [int(word) for word in done.stdout.split()] == [nice if full_speed_s else low, low, low]


def test_early_child_that_ended_is_replaced(device, tmp_path):
    generation = install_gallery(make_gallery(tmp_path / "four", 4), device)
    prove = prover(state_dir=device)
    prove.start_early()
    os.kill(prove._early._child.pid, 9)
    prove._early._child.wait()
    assert prove(*folders(device, generation)) == []


class _Late:
    """A child that ends, because it waited too long, just as it is asked."""

    is_alive = True

    def ask(self, *_: object) -> tuple[int, bytes]:
        return 0, b""

    def close(self) -> None:
        pass


def test_early_child_that_ends_as_it_is_asked_is_replaced(device, tmp_path):
    generation = install_gallery(make_gallery(tmp_path / "four", 4), device)
    prove = prover(state_dir=device)
    prove._early = _Late()
    assert prove(*folders(device, generation)) == []


def test_early_child_that_is_not_used_is_ended(device):
    prove = prover(state_dir=device)
    prove.start_early()
    child = prove._early._child
    prove.start_early()  # it waits already
    assert prove._early._child is child
    prove.close()
    assert child.returncode == -9
