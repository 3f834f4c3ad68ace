"""What the documents say is true: commands run as printed, links lead somewhere, references are current."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from scripts import make_reference

ROOT = Path(__file__).parents[1]
PAGES = sorted([ROOT / "README.md", *(ROOT / "docs/tutorials").glob("*.md"), *(ROOT / "docs/how-to").glob("*.md")])
OUTSIDE_THE_SITE = [
    ROOT / name for name in ("README.md", "CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md", "benchmarks/README.md")
]

# Run by other means: the demo by tests/integration/test_device.py, the tests by whoever runs this one.
ELSEWHERE = {"make demo", "make test"}


def tracked() -> list[str]:
    return subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.split("\n")


def script_of(page: Path) -> str:
    """The `sh` blocks of a page as one script; blocks of other kinds need a camera, a broker or a GPU."""
    blocks = re.findall(r"^```sh\n(.*?)^```", page.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)
    return "\n".join(line for line in "".join(blocks).splitlines() if line.split("  #")[0].strip() not in ELSEWHERE)


@pytest.fixture
def checkout(tmp_path) -> Path:
    """A folder that looks like a fresh checkout after `make demo`; what commands write stays out of the real one."""
    folder = tmp_path / "finesight"
    folder.mkdir()
    for name in {name.split("/")[0] for name in tracked() if name} | {".venv"}:
        (folder / name).symlink_to(ROOT / name)
    return folder


@pytest.fixture
def environment(tmp_path) -> dict[str, str]:
    """The environment of a new user: no virtual environment on the PATH, nothing of ours set."""
    path = [part for part in os.environ["PATH"].split(os.pathsep) if ".venv" not in part]
    kept = {key: value for key, value in os.environ.items() if key not in ("VIRTUAL_ENV", "PYTHONPATH")}
    return kept | {"PATH": os.pathsep.join(path), "HOME": str(tmp_path)}


@pytest.mark.slow
@pytest.mark.parametrize("page", [p for p in PAGES if script_of(p).strip()], ids=lambda p: str(p.relative_to(ROOT)))
def test_commands_of_a_page_run_as_printed(page, checkout, environment):
    done = subprocess.run(
        ["bash", "-euxo", "pipefail", "-c", script_of(page)],
        cwd=checkout,
        env=environment | {"PWD": str(checkout)},
        capture_output=True,
        text=True,
        timeout=1200,
        check=False,
    )
    assert done.returncode == 0, f"{page.name}\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}"


@pytest.mark.parametrize(
    "page", [p for p in PAGES if p.parent.name != "how-to" and p.name != "index.md"], ids=lambda p: p.name
)
def test_readme_and_tutorials_print_commands(page):
    assert len(script_of(page).splitlines()) >= 2


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


@pytest.mark.parametrize("name", make_reference.PAGE_OF)
def test_reference_page_is_not_stale(name):
    path = ROOT / "docs/reference" / name
    assert path.read_text(encoding="utf-8") == make_reference.pages()[make_reference.PAGES / name], (
        "run `make reference`"
    )


def test_every_counter_has_a_help_text():
    from edge.telemetry.counters import COUNTER_HELP

    assert set(make_reference.counters_in_code()) == set(COUNTER_HELP)


def test_make_targets_of_the_documents_exist():
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    texts = "".join(path.read_text(encoding="utf-8") for path in [*PAGES, *OUTSIDE_THE_SITE])
    named = set(re.findall(r"(?:`|^|^\$ )make ([a-z][a-z-]*)", texts, flags=re.MULTILINE))
    assert {"demo", "test", "check", "docs"} <= named
    assert named - set(re.findall(r"^([a-z-]+):", makefile, flags=re.MULTILINE)) == set()


@pytest.mark.parametrize("command", ["edge", "edge-train", "edge-quantize", "edge-sync"])
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
