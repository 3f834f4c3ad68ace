"""What the documents say is true: links lead somewhere, references are current, commands exist.

tests/test_docs_training.py and tests/test_docs_devices.py run the commands as printed, which takes minutes.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from scripts import make_reference
from tests.pages import PAGES, ROOT, run_by_itself

OUTSIDE_THE_SITE = [
    ROOT / name for name in ("README.md", "CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md", "benchmarks/README.md")
]


def tracked() -> list[str]:
    return subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.split("\n")


@pytest.mark.parametrize(
    "page", [p for p in PAGES if p.parent.name != "how-to" and p.name != "index.md"], ids=lambda p: p.name
)
def test_readme_and_tutorials_print_commands(page):
    assert sum(len(block.commands.splitlines()) for block in run_by_itself(page)) >= 2


def test_readme_is_at_most_120_lines():
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) <= 120


@pytest.mark.parametrize("page", OUTSIDE_THE_SITE, ids=lambda p: str(p.relative_to(ROOT)))
def test_links_outside_the_site_lead_somewhere(page):
    links = re.findall(r"\]\(([^)\s]+)\)", page.read_text(encoding="utf-8"))
    missing = [link for link in links if "://" not in link and not (page.parent / link.split("#")[0]).exists()]
    assert missing == []


@pytest.fixture(scope="module")
def site(tmp_path_factory) -> Path:
    """The built site; a dead link or a page that nothing leads to is an error."""
    folder = tmp_path_factory.mktemp("site")
    build = [sys.executable, "-m", "sphinx", "-q", "-W", "--keep-going", "-b", "html", ROOT / "docs", folder]
    done = subprocess.run(build, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-4000:]
    return folder


def test_site_builds_without_a_dead_link(site):
    assert (site / "index.html").is_file()


def test_site_has_a_search_that_works_offline(site):
    assert "outbox" in (site / "searchindex.js").read_text(encoding="utf-8")


def test_site_loads_nothing_from_elsewhere(site):
    loads = re.compile(r"<(?:script|img|link)[^>]+(?:src|href)=\"(?:https?:)?//")
    assert [page.name for page in site.rglob("*.html") if loads.search(page.read_text(encoding="utf-8"))] == []


def test_files_made_from_the_code_are_not_stale():
    stale = [path.name for path, text in make_reference.pages().items() if path.read_text(encoding="utf-8") != text]
    assert stale == [], "run `make reference`"


def test_every_counter_has_a_help_text():
    from edge.telemetry.counters import COUNTER_HELP

    assert set(make_reference.counters_in_code()) == set(COUNTER_HELP)


def test_make_targets_of_the_documents_exist():
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    texts = "".join(path.read_text(encoding="utf-8") for path in [*PAGES, *OUTSIDE_THE_SITE])
    named = set(re.findall(r"(?:`|^|^\$ )make ([a-z][a-z-]*)", texts, flags=re.MULTILINE))
    assert {"demo", "test", "check", "docs"} <= named
    rules = re.findall(r"^([a-z][a-z -]*):", makefile, flags=re.MULTILINE)
    assert named - {target for targets in rules for target in targets.split()} == set()


@pytest.mark.parametrize("command", ["edge", "edge-console", "edge-train", "edge-quantize", "edge-sync"])
def test_every_command_answers_help(command):
    found = shutil.which(command, path=str(Path(sys.executable).parent)) or command
    done = subprocess.run([found, "--help"], capture_output=True, text=True, check=False)
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
    texts = [name for name in tracked() if Path(name).suffix in {".py", ".md", ".yaml", ".toml", ".sh", ".json", ""}]
    forbidden = re.compile(r"/(?:work|root|home)/\w")
    found = [n for n in texts if (ROOT / n).is_file() and forbidden.search((ROOT / n).read_text(errors="ignore"))]
    assert found == []
