"""What the documents say is true: every command of the README runs, every file it names is there."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```sh\n(.*?)```", README, flags=re.DOTALL)

# Run by other means: the demo by tests/integration/test_device.py, the tests by whoever runs this one.
ELSEWHERE = {"make demo", "make test"}
# Training is shortened: the command runs as it stands but for these additions.
SHORTER = {
    "edge-train detector": ["--set", "optimiser.epochs=1"],
    "edge-train classifier": ["--set", "optimiser.epochs=1"],
    "edge-train embedder": ["--set", "optimiser.epochs=1"],
    "edge-quantize pack": ["--precision", "fp32", "--no-probes"],
}


def commands() -> list[str]:
    return [line.split("  #")[0].strip() for block in BLOCKS for line in block.splitlines() if line.strip()]


@pytest.fixture(scope="module")
def checkout(tmp_path_factory) -> Path:
    """A folder that looks like the checkout; what commands write stays out of the real one."""
    folder = tmp_path_factory.mktemp("checkout")
    for name in ("demo", "configs", "edge", "trainer", "quantize", "gallery_sync"):
        (folder / name).symlink_to(ROOT / name)
    return folder


@pytest.mark.slow
def test_every_command_of_the_readme_runs(checkout):
    environment = os.environ | {"PATH": f"{ROOT / '.venv/bin'}:{os.environ['PATH']}", "PWD": str(checkout)}
    ran = []
    for command in commands():
        if command in ELSEWHERE:
            continue
        verb = " ".join(shlex.split(command)[:2])
        line = [part.replace("$PWD", str(checkout)) for part in shlex.split(command)] + SHORTER.get(verb, [])
        assert shutil.which(line[0], path=environment["PATH"]), f"{line[0]}: found no such command"
        done = subprocess.run(
            line, cwd=checkout, env=environment, capture_output=True, text=True, timeout=600, check=False
        )
        assert done.returncode == 0, f"{command}\n{done.stdout[-2000:]}\n{done.stderr[-2000:]}"
        ran.append(verb)
    assert len(ran) >= 10


@pytest.mark.parametrize("document", ["README.md", "docs/design.md", "benchmarks/README.md"])
def test_every_file_a_document_names_is_there(document):
    path = ROOT / document
    named = re.findall(r"\]\(([^)#]+)\)", path.read_text(encoding="utf-8"))
    missing = [link for link in named if "://" not in link and not (path.parent / link).exists()]
    assert missing == []


def test_make_targets_of_the_readme_exist():
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for target in ELSEWHERE:
        assert re.search(rf"^{target.split()[1]}:", makefile, flags=re.MULTILINE)


@pytest.mark.parametrize("command", ["edge", "edge-train", "edge-quantize", "edge-sync"])
def test_every_command_answers_help(command):
    done = subprocess.run([ROOT / ".venv/bin" / command, "--help"], capture_output=True, text=True, check=False)
    assert done.returncode == 0
    assert done.stdout.startswith("usage:")


@pytest.mark.parametrize("example", sorted((ROOT / "configs").glob("*.yaml")), ids=lambda path: path.name)
def test_every_example_configuration_is_valid(example):
    from edge.config.yaml_file import load_config

    assert load_config(example, {}).cameras


@pytest.mark.parametrize("recipe", sorted((ROOT / "configs/train").glob("*.yaml")), ids=lambda path: path.name)
def test_every_training_recipe_is_valid(recipe):
    from trainer.recipe import load_recipe

    assert load_recipe(recipe).optimiser.epochs > 0


@pytest.mark.parametrize("recipe", sorted((ROOT / "benchmarks/recipes").glob("*.yaml")), ids=lambda path: path.name)
def test_every_benchmark_recipe_is_valid(recipe):
    from trainer.recipe import load_recipe

    assert load_recipe(recipe).optimiser.epochs > 0


def test_nothing_in_the_project_names_a_path_of_a_machine():
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.split()
    texts = [name for name in listed if Path(name).suffix in {".py", ".md", ".yaml", ".toml", ".sh", ".json", ""}]
    forbidden = re.compile(r"/(?:work|root|home)/\w")
    found = [n for n in texts if (ROOT / n).is_file() and forbidden.search((ROOT / n).read_text(errors="ignore"))]
    assert found == []
