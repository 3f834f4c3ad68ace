"""docs/results/sources.md: every element of the five sources has a row, and what a row names exists and is tested."""

import re
import shlex
from pathlib import Path

import pytest

from edge.options import build_parser as edge_parser
from quantize.options import build_parser as quantize_parser
from trainer.options import build_parser as trainer_parser
from trainer.tables.every_table import TABLES
from trainer.tables.table import Request

ROOT = Path(__file__).parent.parent
PAGE = ROOT / "docs/results/sources.md"
ELEMENTS = [
    f"{source}{n}" for source, last in {"A": 9, "B": 7, "C": 8, "D": 6, "E": 10}.items() for n in range(1, last + 1)
]
COMMANDS = sorted(set(re.findall(r"`((?:edge|edge-train|edge-quantize) [^`]* -[^`]*)`", PAGE.read_text())))
VERDICTS = ("works", "differs, because", "left out, because")


def rows():
    """The rows of the page's tables: number, verb or recipe, tests, verdict."""
    lines = [line for line in PAGE.read_text().splitlines() if re.match(r"\| [A-E]\d+ ", line)]
    return [[cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in lines]


def named_tests(row):
    """The tests that a row names, as file and function."""
    return re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", row[2])


def test_every_element_of_the_sources_has_a_row():
    listed = {row[0].split()[0] for row in rows()}
    assert listed == set(ELEMENTS)


@pytest.mark.parametrize("row", rows(), ids=lambda row: row[0][:40])
def test_row_says_whether_it_works_and_names_real_tests(row):
    assert len(row) == 4
    assert row[3].startswith(VERDICTS), row[3]
    assert named_tests(row) or row[3].startswith("left out"), "names no test"
    for file, name in named_tests(row):
        assert re.search(rf"^(async )?def {name}\(", (ROOT / file).read_text(), re.MULTILINE), f"{file}::{name}"


@pytest.mark.parametrize("row", rows(), ids=lambda row: row[0][:40])
def test_commands_of_a_row_are_run_by_a_test_of_it(row):
    tested = "".join((ROOT / file).read_text() for file, _ in named_tests(row))
    for program, verb, name in re.findall(r"`(edge\w*(?:-\w+)?) ([\w-]+)(?: ([\w-]+))?", row[1]):
        words = [verb, name] if verb == "table" else [verb]
        missing = [word for word in words if word not in tested]
        assert not missing, f"{program} {' '.join(words)}: no test of the row runs it"


@pytest.mark.parametrize("command", COMMANDS)
def test_commands_of_the_page_have_these_options(command):
    program, *words = shlex.split(command)
    if words[0] == "pack":  # the page says what else it needs
        words += ["--id", "shop", "--sequence", "1", "--out", "shop"]
    parsers = {"edge": lambda: edge_parser("info"), "edge-train": trainer_parser, "edge-quantize": quantize_parser}
    if "--help" not in words:
        parsers[program]().parse_args(words)


def test_recipes_of_the_page_exist():
    for recipe in re.findall(r"configs/[\w/.-]+\.yaml", PAGE.read_text()):
        assert (ROOT / recipe).is_file(), recipe


def test_rows_of_tables_that_pages_name_exist(tmp_path):
    rows = {row for table in TABLES for row in table.methods(Request(tmp_path, tmp_path))}
    pages = "\n".join(page.read_text() for page in (ROOT / "docs").rglob("*.md"))
    named = [quoted or words for quoted, words in re.findall(r"--methods (?:['\"]([^'\"]+)|([\w,+-]+))", pages)]
    assert named
    assert {row for names in named for row in names.split(",")} <= rows
