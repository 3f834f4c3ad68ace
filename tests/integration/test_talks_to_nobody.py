"""Every command talks to the addresses that its user names, and to nobody else, and leaves nothing in the home folder.

The addresses named here are all on loopback, so any other address, and any name server, is a failure.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import itertools
import json
import os
import signal
import sys
import urllib.request
from pathlib import Path

import pytest
import tomllib

from gallery_sync.cli import main as sync
from tests.integration.mosquitto import Mosquitto, free_port
from tests.integration.network_watch import ROOT, Watch, watch
from tests.integration.server_commands import COMMANDS as SERVER_COMMANDS
from tests.integration.small_demo import small_bundle
from tests.store_samples import make_bundle, make_gallery
from tests.unsigned_samples import publish_unsigned
from tests.waiting import LONG_DEADLINE_S, until

DEMO = ROOT / "demo"
# In this order: later commands use what earlier ones wrote. {} is the folder of it all, {demo} the shipped demo
BEFORE = {
    "edge schema": "",
    "edge init": "{}/examples",
    "edge doctor": "",
    "edge bundle verify": "{demo}/bundle",
    "edge bundle install": "{}/small --gallery {demo}/gallery --state-dir {}/state",
    "edge bundle activate": "--state-dir {}/state",
    "edge bundle prove": "--state-dir {}/state",
    "edge bundle list": "--state-dir {}/state",
    "edge gallery status": "--state-dir {}/state",
    "edge gallery cut": "{demo}/gallery --whole {demo}/bundle --bundle {demo}/bundle -o {}/cut-gallery",
    "edge check": "--probe --seconds 1 -c {}/device.yaml",
    "edge recognise": "{demo}/bundle/probes/00.png --state-dir {}/state",
    "edge bench": "-c {}/openvino.yaml --source {demo}/stream.mp4 --frames 5 --bundle {demo}/bundle "
    "--gallery {demo}/gallery",
    "edge find": "{demo}/bundle/probes/00.png {demo}/bundle/probes/01.png --bundle {demo}/bundle -o {}/found",
    "edge record": "-c {}/recorded.yaml --until-end",
    "edge replay": "-c {}/recorded.yaml {}/state/ring/RUN/desk",
    "edge-sync init": "{}/repository --line shop --development",
    "edge-sync publish": "{}/repository --bundle {}/small --gallery {demo}/gallery",
    "edge-sync refresh": "{}/repository",
    "edge-sync oci export": "{}/repository 1 --to {}/layout",
    "edge-sync oci import": "{}/layout --to {}/imported",
    "edge-sync key new": "{}/people bob",
    "edge-sync key import": "envvar:KEY {}/nobody.pub",
    "edge-sync key list": "{}/repository",
    "edge-sync sign": "{}/two.keys/drafts/root-1-targets-1.json --key {}/people/alice.pem --yes",
    "edge-sync rotate": "{}/repository --role gallery --new",
    "edge-sync adopt": "{}/old",
    "edge-sync enrolment new": "{}/repository --url file://{}/repository --count 1 --claims -o {}/enrolments",
    "edge-sync enrol": "{}/enrolments/cam-001.json --state-dir {}/pulled",
    "edge-sync enrolment retire": "{}/repository --all",
    "edge-sync pull": "--state-dir {}/pulled --activate",
    "edge-sync gallery list": "{}/repository",
    "edge-sync gallery upsert": "{}/repository bottle new --label New --pictures {demo}/bundle/probes/00.png",
    "edge-sync gallery add": "{}/repository {}/index.csv",
    "edge-sync gallery rename": "{}/repository bottle new other",
    "edge-sync gallery merge": "{}/repository bottle new bottle-01",
    "edge-sync gallery delete": "{}/repository bottle bottle-01 --urgent",
    "edge-sync release list": "{}/repository",
    "edge-sync release show": "{}/repository 1",
    "edge-sync release diff": "{}/repository 1 2",
    "edge-sync config publish": "{}/repository night-mode --file {}/night.yaml --by alice",
    "edge-sync config list": "{}/repository",
    "edge-sync config show": "{}/repository night-mode",
    "edge-sync config remove": "{}/repository night-mode --by alice",
    "edge-sync agent": "--once --state-dir {}/pulled --device-config {}/device.yaml",
    "edge-sync hawkbit": "--url http://127.0.0.1:9 --token-env HOME --once --state-dir {}/pulled",
    "edge-sync mender": "SupportsRollback {}/pulled",
    "edge-sync rollback": "shop --to 1 --repo {}/repository --hold",
    "edge-sync rollout create": "{}/repository --id all --canary 5% --wave 100% --by ann",
    "edge-sync rollout approve": "{}/repository all --by bob",
    "edge-sync rollout status": "{}/repository",
    "edge-sync rollout pause": "{}/repository --reason look",
    "edge-sync rollout resume": "{}/repository",
    "edge-sync rollout next": "{}/repository",
    "edge-sync rollout run": "{}/repository --blind --once",
    "edge-sync rollout pin": "{}/repository --select device=cam-009 --release 1",
    "edge-sync rollout pins": "{}/repository",
    "edge-sync rollout unpin": "{}/repository --select device=cam-009",
    "edge-sync rollout complete": "{}/repository",
    "edge-sync rollout abort": "{}/repository",
    "edge-sync rollout history": "{}/repository",
    "edge-sync release drop": "{}/repository 1",
    "edge-sync release withdraw": "{}/repository 1",
    "edge-sync check": "{}/repository",
    "edge-sync gc": "{}/repository",
    "edge-sync recover": "{}/lost --keys {}/repository.keys --from {}/repository",
    "edge-console user add": "ann --role admin --password-stdin --data {}/console",
    "edge-console user list": "--data {}/console",
    "edge-console user password": "ann --password-stdin --data {}/console",
    "edge-console user role": "ann admin --data {}/console",
    "edge-console token add": "ann --name test --data {}/console",
    "edge-console token list": "--data {}/console",
    "edge-console token remove": "1 --data {}/console",
    "edge-console backup": "{}/console.backup --data {}/console",
    "edge-console restore": "{}/console.backup --data {}/console",
    "edge-console user remove": "ann --data {}/console",
}
WHILE_IT_RUNS = {"edge status": "-c {}/device.yaml", "edge support-bundle": "-c {}/device.yaml -o {}/support.tar.gz"}
AFTER = {"edge bundle rollback": "--state-dir {}/pulled"}
ALONE = {
    "edge run": "-c {}/device.yaml",
    "edge demo": "",
    "edge-sync fleet serve": "--database {}/fleet.sqlite --broker mqtt://127.0.0.1:{broker} --listen 127.0.0.1:{port} "
    "--repository {}/repository --inbox {}/inbox",
    "edge-console serve": "--data {}/labels --repo {}/repository --device {}/pulled --inbox {}/inbox "
    "--fleet http://127.0.0.1:{port} --listen 127.0.0.1:{console}",
    "edge-console demo": "--data {}/console-demo --listen 127.0.0.1:{console}",
}
OF_THE_FLEET = {
    "edge-sync devices": "--fleet http://127.0.0.1:{port}",
    "edge-sync device": "one --fleet http://127.0.0.1:{port}",
    "edge-sync commands": "--fleet http://127.0.0.1:{port}",
    "edge-sync send": "sync one --fleet http://127.0.0.1:{port} --by ann --wait 0s",
}
# there is no such key, no hawkBit; what devices run stays; the rollout is complete;
# nothing is held back; no device of the fleet has reported; the last admin stays
REFUSED = {
    "edge-sync key import",
    "edge-sync release withdraw",
    "edge-sync release drop",
    "edge-sync rollout abort",
    "edge-sync hawkbit",
    "edge-sync device",
    "edge-sync send",
    "edge-console user remove",
}
PARSERS = {
    "edge": lambda: importlib.import_module("edge.options").build_parser("info"),
    "edge-sync": lambda: importlib.import_module("gallery_sync.cli").build_parser(),
    "edge-quantize": lambda: importlib.import_module("quantize.options").build_parser(),
    "edge-train": lambda: importlib.import_module("trainer.options").build_parser(),
    "edge-console": lambda: importlib.import_module("console.options").build_parser(),
}
MODULES = {"edge": "edge", "edge-sync": "gallery_sync.cli", "edge-console": "console.cli"}
IN_TURN = ("edge-sync", "edge-console")  # whose short commands share a process
PASSWORD = "a password of this test"
CONSOLE_PAGES = ("/", "/sets", "/review", "/boxes", "/gallery", "/search", "/training", "/fleet", "/fleet/rollouts")


def verbs_of(parser: argparse.ArgumentParser) -> list[str]:
    """Return the commands of a parser; those with commands of their own only through these."""
    found = []
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for name, inner in action.choices.items():
                found += [f"{name} {verb}" for verb in verbs_of(inner)] or [name]
    return found


def test_every_command_is_watched():
    programs = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["scripts"]
    assert set(PARSERS) == set(programs)
    commands = {f"{program} {verb}" for program, parser in PARSERS.items() for verb in verbs_of(parser())}
    assert commands == {*BEFORE, *WHILE_IT_RUNS, *AFTER, *ALONE, *OF_THE_FLEET, *SERVER_COMMANDS}


def fill(folder: Path, arguments: str) -> tuple[list[str], str]:
    """Return the arguments of a command, and what its user types."""
    filled = arguments.replace("{demo}", str(DEMO)).replace("{}", str(folder)).split()
    return filled, f"{PASSWORD}\n" if "--password-stdin" in filled else ""


def start(folder: Path, name: str, arguments: str) -> Watch:
    program, verbs = name.split(maxsplit=1)
    filled, typed = fill(folder, arguments)
    command = [sys.executable, "-m", MODULES[program], *verbs.split(), *filled]
    return watch(folder / "watched" / name.replace(" ", "-"), command, typed)


def run(folder: Path, name: str, arguments: str) -> Watch:
    if name == "edge replay":
        arguments = arguments.replace("RUN", next(path.name for path in (folder / "state/ring").iterdir()))
    with start(folder, name, arguments) as watched:
        printed = watched.wait()
    assert watched.process.returncode == (name in REFUSED), f"{name}: {printed}"
    return watched


def run_all(folder: Path, commands: dict[str, str]) -> dict[str, Watch]:
    """Run commands in order, those of IN_TURN that follow each other in one process."""
    found = {}
    for program, group in itertools.groupby(commands.items(), lambda item: item[0].split()[0]):
        if program in IN_TURN:
            some = dict(group)
            found[f"{program}: {', '.join(some)}"] = run_in_turn(folder, some)
        else:
            found |= {name: run(folder, name, arguments) for name, arguments in group}
    return found


def run_in_turn(folder: Path, commands: dict[str, str]) -> Watch:
    typed = json.dumps([(name, *fill(folder, arguments)) for name, arguments in commands.items()])
    place = folder / "watched" / next(iter(commands)).replace(" ", "-")
    with watch(place, [sys.executable, "-m", "tests.integration.commands_in_turn"], typed) as watched:
        printed = watched.wait(1200.0)
    assert watched.process.returncode == 0, printed
    results = json.loads(printed.splitlines()[-1])
    wrong = {name: said for name, (status, said) in results.items() if status != (name in REFUSED)}
    assert wrong == {}
    return watched


def write_configs(folder: Path, broker_port: int) -> None:
    parts = {
        "device_name": {"site": "test", "device": "one", "state_dir": f"{folder}/state"},
        "mqtt": {"mqtt": {"host": "127.0.0.1", "port": broker_port, "home_assistant": {}}},
        "health": {"health": {"port": free_port()}, "snapshots": {}, "live": {}},
        "kiosk": {"kiosk": {"camera": "desk", "port": free_port()}},
    }
    pictures = {"cameras": {"desk": {"source": f"folder://{DEMO}/bundle/probes/*.png?fps=5&loop=1"}}}
    pictures["cameras"]["desk"] |= {"framing": "whole_frame"}
    video = {"source": f"file://{DEMO}/stream.mp4", "backend": "gstreamer", "pacing": "every_frame"}
    device = {key: value for part in parts.values() for key, value in part.items()}
    (folder / "device.yaml").write_text(json.dumps(device | pictures))
    openvino = {"engine": {"backend": "openvino"}}
    (folder / "openvino.yaml").write_text(json.dumps(parts["device_name"] | pictures | openvino))
    (folder / "recorded.yaml").write_text(json.dumps(parts["device_name"] | {"cameras": {"desk": video}}))


def prepare_repositories(folder: Path) -> None:
    """Make a draft that waits for signatures, and an unsigned repository to be adopted."""
    alice = f"root={folder}/people/alice.pub"
    for command in (
        ["key", "new", f"{folder}/people", "alice"],
        ["init", f"{folder}/two", "--line", "two", "--key", alice, "--threshold", "root=1", "--threshold", "targets=1"],
        ["init", f"{folder}/old", "--line", "demo", "--development"],
    ):
        assert sync(command) == 0
    (folder / "index.csv").write_text(f"path,category,item\n{DEMO}/bundle/probes/05.png,bottle,more\n")
    (folder / "night.yaml").write_text("recognition: {min_looks: 4}\n")
    publish_unsigned(folder / "old", make_bundle(folder / "one", "one", 1), make_gallery(folder / "g3", 3), 1)


def is_ready(port: int) -> bool:
    with contextlib.suppress(OSError), urllib.request.urlopen(f"http://127.0.0.1:{port}/readyz", timeout=60):
        return True
    return False


def is_served(port: int) -> bool:
    with contextlib.suppress(OSError), urllib.request.urlopen(f"http://127.0.0.1:{port}/healthz", timeout=60) as answer:
        return bool(json.load(answer)["broker"])
    return False


def stop(watched: Watch) -> None:
    """Terminate a command, as its user does, and wait for its end."""
    (child,) = Path(f"/proc/{watched.process.pid}/task/{watched.process.pid}/children").read_text().split()
    os.kill(int(child), signal.SIGTERM)
    printed = watched.wait()
    assert watched.process.returncode == 0, printed


def run_the_fleet(folder: Path, broker_port: int) -> dict[str, Watch]:
    """Run the fleet's server until it has its broker, ask it, and stop it."""
    ports = {"{port}": str(free_port()), "{broker}": str(broker_port)}

    def filled(arguments: str) -> str:
        for name, port in ports.items():
            arguments = arguments.replace(name, port)
        return arguments

    with start(folder, "edge-sync fleet serve", filled(ALONE["edge-sync fleet serve"])) as server:
        until(lambda: is_served(int(ports["{port}"])), "the fleet's server has its broker", LONG_DEADLINE_S)
        asked = run_all(folder, {name: filled(arguments) for name, arguments in OF_THE_FLEET.items()})
        asked |= {
            f"edge-console {verb}": run_the_console(folder, verb, filled(ALONE[f"edge-console {verb}"]))
            for verb in ("serve", "demo")
        }
        stop(server)
    return {"edge-sync fleet serve": server, **asked}


def run_the_console(folder: Path, verb: str, arguments: str) -> Watch:
    """Run the console until it listens, open its pages, and stop it."""
    port = free_port()
    with start(folder, f"edge-console {verb}", arguments.replace("{console}", str(port))) as console:
        for line in console.process.stdout:
            if line.startswith("console: "):
                break
        token = line.strip().partition("token=")[2]
        for path in CONSOLE_PAGES:
            url = urllib.request.Request(f"http://127.0.0.1:{port}{path}", headers={"Authorization": f"Bearer {token}"})
            with urllib.request.urlopen(url, timeout=LONG_DEADLINE_S) as answer:
                assert answer.status == 200
        stop(console)
    return console


def run_the_device(folder: Path) -> dict[str, Watch]:
    """Run the device until it is ready, ask it, and stop it."""
    with start(folder, "edge run", ALONE["edge run"]) as device:
        port = json.loads((folder / "device.yaml").read_text())["health"]["port"]
        until(lambda: is_ready(port), "the device is ready", LONG_DEADLINE_S)
        asked = {name: run(folder, name, arguments) for name, arguments in WHILE_IT_RUNS.items()}
        stop(device)
    return {"edge run": device, **asked}


@pytest.fixture(scope="module")
def watched(tmp_path_factory) -> dict[str, Watch]:
    """Run every command once, the long ones beside the others."""
    folder = tmp_path_factory.mktemp("talk")
    (folder / "server").mkdir()
    command = [sys.executable, "-m", "tests.integration.server_commands", folder / "server"]
    with (
        Mosquitto(folder / "broker") as broker,
        watch(folder / "watched/server", command) as server,
        start(folder, "edge demo", ALONE["edge demo"]) as demo,
    ):
        small_bundle(folder / "small", 1)
        write_configs(folder, broker.port)
        prepare_repositories(folder)
        found = run_all(folder, BEFORE)
        found |= run_the_device(folder)
        found |= run_the_fleet(folder, broker.port)
        found |= {name: run(folder, name, arguments) for name, arguments in AFTER.items()}
        printed = demo.wait()
        assert "demo passed" in printed, printed
        printed = server.wait()
    assert server.process.returncode == 0, printed
    failed = {name: said for name, (status, said) in json.loads(printed.splitlines()[-1]).items() if status}
    assert set(failed) <= {"edge-quantize compare"}, failed  # which ends with 1 where a gate fails
    return found | {"edge demo": demo, "edge-train, edge-quantize": server}


def test_no_command_talks_to_an_address_that_nobody_named(watched):
    assert {name: talk for name, one in watched.items() if (talk := one.talk())} == {}


def test_no_command_leaves_files_in_the_home_folder(watched):
    assert {name: files for name, one in watched.items() if (files := one.left_at_home())} == {}


PROBE = """
import contextlib, socket
with contextlib.suppress(OSError):
    socket.getaddrinfo("nobody.invalid", 1)
with contextlib.suppress(OSError):
    socket.socket(socket.AF_INET, socket.SOCK_DGRAM).connect(("192.0.2.1", 9))
"""


def test_watch_sees_children_name_servers_and_files(tmp_path):
    with watch(tmp_path, ["sh", "-c", f"{sys.executable} -c '{PROBE}' && echo 1 > ~/.id"]) as one:
        assert one.wait() == ""
    assert "192.0.2.1:9" in one.talk()
    assert any(address.endswith(":53") for address in one.talk())
    assert one.left_at_home() == [".id"]
