"""Optional packages: every extra that is named exists, and a command without its packages says what to install."""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from console.options import build_parser as console_parser
from edge import extras, options
from edge.inference.engine import RUNS
from gallery_sync.cli import build_parser as sync_parser
from quantize.cli import build_parser as quantize_parser
from trainer.options import build_parser as trainer_parser

ROOT = Path(__file__).parents[1]
MADE_OF = (
    "benchmarks",
    "configs",
    "console",
    "dataset_formats",
    "docs",
    "edge",
    "gallery_sync",
    "packaging",
    "quantize",
    "scripts",
)
OWN = ("console", "dataset_formats", "edge", "gallery_sync", "learn", "quantize", "trainer", "__main__")
PARSERS = {
    "console.cli": console_parser(),
    "edge.cli": options.build_parser("info"),
    "gallery_sync.cli": sync_parser(),
    "quantize.cli": quantize_parser(),
    "trainer.cli": trainer_parser(),
}
RUN_ALL = """
import contextlib, json, os, sys, tempfile, traceback
from importlib import import_module
from importlib.machinery import PathFinder
hidden, own, module, commands = json.load(sys.stdin)
class Device:
    @staticmethod
    def find_spec(name, path=None, target=None):
        return None if name.partition(".")[0] in hidden else PathFinder.find_spec(name, path, target)
sys.meta_path[:] = [Device if finder is PathFinder else finder for finder in sys.meta_path]
main = import_module(module).main
outcomes = []
for words in commands:
    with (
        tempfile.TemporaryDirectory() as folder,
        tempfile.TemporaryFile("w+") as errors,
        tempfile.TemporaryFile("w+") as loaded,
    ):
        child = os.fork()
        if child == 0:
            os.chdir(folder)
            os.dup2(os.open(os.devnull, os.O_RDWR), 0)
            os.dup2(0, 1)
            os.dup2(errors.fileno(), 2)
            try:
                code = main(words)
            except SystemExit as end:
                code = end.code
            except BaseException:
                traceback.print_exc()
                code = 1
            sys.stderr.flush()
            json.dump([name for name in sys.modules if name.partition(".")[0] not in own], loaded)
            loaded.flush()
            os._exit(code or 0)
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        errors.seek(0)
        loaded.seek(0)
        outcomes.append([code, errors.read()])
        for name in json.loads(loaded.read() or "[]"):  # libraries: the next child has them from the beginning
            with contextlib.suppress(Exception):
                import_module(name)
print(json.dumps(outcomes))
"""
COMMANDS_OF_EXTRAS = [
    *(
        ("trainer.cli", (kind, "-c", "none", "-o", "none"), "trainer")
        for kind in ("detector", "classifier", "embedder", "localiser", "finder")
    ),
    ("trainer.cli", ("synthesize", "-o", "none"), "trainer"),
    ("quantize.cli", ("quantize", "none", "none", "--index", "none"), "quantize"),
    ("edge.cli", ("demo",), "demo"),
    ("console.cli", ("serve",), "console"),
]


def declared_extras() -> dict[str, str]:
    """Return the requirements of each extra in pyproject.toml, as one text."""
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    table = text.split("[project.optional-dependencies]")[1].split("\n[")[0]
    return dict(re.findall(r"^([a-z-]+) = (\[.*?\])(?=\s*(?:#.*)?$)", table, flags=re.DOTALL | re.MULTILINE))


def extras_in(text: str) -> set[str]:
    """Return the extras that a text names: `finesight[a,b]`, and `.[a,b]` of pip in a checkout."""
    lists = re.findall(r"(?:finesight|[ '\"(]\.)\[([a-z][a-z,-]*)\]", text)
    return {name for names in lists for name in names.split(",")}


def texts() -> Iterator[tuple[Path, str]]:
    files = [ROOT / "README.md", ROOT / "NOTICE", ROOT / "Makefile", *(ROOT / "trainer").rglob("*.py")]
    files += [path for folder in MADE_OF for path in (ROOT / folder).rglob("*") if path.is_file()]
    for path in files:
        if path.suffix in {"", ".py", ".md", ".yaml", ".Dockerfile"} and "__pycache__" not in path.parts:
            yield path, path.read_text(encoding="utf-8", errors="ignore")


def test_every_extra_that_is_named_exists():
    unknown = {f"{path.relative_to(ROOT)}: {name}" for path, text in texts() for name in extras_in(text)}
    assert {line for line in unknown if line.split(": ")[1] not in declared_extras()} == set()


def test_extras_are_found_in_texts():
    assert extras_in("pip install -e '.[trainer,heic]' \"finesight[no-such]\"") == {"trainer", "heic", "no-such"}


@pytest.mark.parametrize("engine", [*sorted(RUNS.keys() - {"onnxruntime"}), "kiosk", "gstreamer", "demo"])
def test_install_command_names_an_extra(engine):
    named = extras_in(extras.install_command(engine))
    assert named
    assert named <= declared_extras().keys()


@pytest.mark.parametrize(
    ("package", "extra"),
    [(package, extra) for package, names in extras._EXTRAS_OF_PACKAGE.items() for extra in names]
    + [(package, extra) for extra, packages in extras._EXTRA_PACKAGES.items() for package in packages],
)
def test_extra_brings_the_package_that_it_is_named_for(package, extra):
    distribution = {
        "PIL": "pillow",
        "python_multipart": "python-multipart",
        "ray": "ray[data]",
        "pwdlib": "pwdlib[argon2]",
    }.get(package, package)
    assert f'"{distribution}>' in declared_extras()[extra]


def test_readme_lists_every_extra_of_users():
    table = set(re.findall(r"^\| `([a-z-]+)` \|", (ROOT / "README.md").read_text(encoding="utf-8"), flags=re.MULTILINE))
    page = (ROOT / "docs/how-to/install.md").read_text(encoding="utf-8")
    listed = table | set(re.findall(r"^\| `([a-z-]+)` \|", page, flags=re.MULTILINE))
    assert listed == declared_extras().keys() - {"benchmarks", "dev", "device-test"}


def device_distributions() -> set[str]:
    """Return the distributions that a device has: finesight without an extra, and what those need."""
    found: set[str] = set()
    wanted = ["finesight"]
    while wanted:
        name = canonicalize_name(wanted.pop())
        if name not in found:
            found.add(name)
            needs = map(Requirement, importlib.metadata.requires(name) or [])
            wanted += [need.name for need in needs if need.marker is None or need.marker.evaluate({"extra": ""})]
    return found


def server_packages() -> list[str]:
    """Return the importable packages that a device lacks."""
    has = device_distributions()
    packages = importlib.metadata.packages_distributions()
    hidden = [name for name, by in packages.items() if not has & {canonicalize_name(one) for one in by}]
    assert {"torch", "onnx", "tqdm", "PIL", "amqtt"} <= set(hidden)
    assert not {"cv2", "numpy", "onnxruntime", "yaml"} & set(hidden)
    return hidden


def leaves(parser: argparse.ArgumentParser, words: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """Yield the words of each command, with a value for each argument that it requires."""
    actions = parser._actions
    below = [action for action in actions if isinstance(action, argparse._SubParsersAction)]
    if below:
        for name, child in below[0].choices.items():
            yield from leaves(child, (*words, name))
        return
    required = [action for action in actions if action.required]
    groups = [group for group in parser._mutually_exclusive_groups if group.required]
    required += [group._group_actions[0] for group in groups]
    for action in required:
        of_type = {"int": "1", "selector": "group=none"}.get(getattr(action.type, "__name__", ""), "none")
        value = next(iter(action.choices)) if action.choices else of_type
        words += (*action.option_strings[:1], value)
    yield words


COMMANDS = [(module, words) for module, parser in PARSERS.items() for words in leaves(parser)]


@pytest.fixture(scope="module")
def outcomes() -> dict[tuple[str, tuple[str, ...]], tuple[int, str]]:
    """The exit status and stderr of every command on a device: one process imports a program, and forks for each."""
    hidden = server_packages()
    found = {}
    for module in PARSERS:
        commands = [words for name, words in COMMANDS if name == module]
        commands += [words for name, words, _ in COMMANDS_OF_EXTRAS if name == module]
        done = subprocess.run(
            [sys.executable, "-c", RUN_ALL],
            input=json.dumps([hidden, OWN, module, commands]),
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        for words, outcome in zip(commands, json.loads(done.stdout), strict=True):
            found[module, words] = tuple(outcome)
    return found


@pytest.mark.parametrize(("module", "words"), COMMANDS, ids=[f"{m} {' '.join(words)}" for m, words in COMMANDS])
def test_command_on_a_device_ends_without_a_traceback(module, words, outcomes):
    status, errors = outcomes[module, words]
    assert status in (0, 1)
    assert "Traceback" not in errors
    if status == 1 and words[0] != "doctor":
        assert len(errors.splitlines()) == 1


@pytest.mark.parametrize(("module", "words", "extra"), COMMANDS_OF_EXTRAS)
def test_command_without_its_packages_names_the_extra(module, words, extra, outcomes):
    status, errors = outcomes[module, words]
    assert status == 1
    assert errors.splitlines()[-1].endswith(f'install "finesight[{extra}]"')
