"""The files that browsers load: what they are, and that nothing of them asks another host."""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path

import pytest

CONSOLE = Path(__file__).parents[2] / "console"
VENDOR = CONSOLE / "static/vendor"
LISTED = json.loads((VENDOR / "vendor.json").read_text(encoding="utf-8"))
OWN = sorted(
    path for folder in ("static", "templates") for path in (CONSOLE / folder).rglob("*")
    if path.suffix in {".html", ".js", ".css", ".svg"} and VENDOR not in path.parents
)  # fmt: skip
NAMES_NO_HOST = ("http://www.w3.org/",)  # names of XML vocabularies, which nobody loads


def test_vendored_files_are_those_of_the_list():
    found = {path.name for path in VENDOR.iterdir()} - {"vendor.json"}
    assert found == {name for one in LISTED for name in (*one["files"], one["licence_file"])}


@pytest.mark.parametrize("package", LISTED, ids=lambda one: one["package"])
def test_vendored_file_is_unchanged(package):
    for name, expected in package["files"].items():
        assert hashlib.sha256((VENDOR / name).read_bytes()).hexdigest() == expected
    assert package["licence"] in {"0BSD", "MIT", "BSD-3-Clause"}
    assert len((VENDOR / package["licence_file"]).read_text(encoding="utf-8")) > 200


@pytest.mark.parametrize("path", OWN, ids=lambda path: str(path.relative_to(CONSOLE)))
def test_own_file_names_no_other_host(path):
    urls = re.findall(r"(?:https?:)?//[a-z0-9][\w.-]*\.[a-z]{2,}[^\s\"')]*", path.read_text(encoding="utf-8"))
    assert [url for url in urls if not url.startswith(NAMES_NO_HOST)] == []


@pytest.mark.parametrize("path", [one for one in OWN if one.suffix == ".html"], ids=lambda path: path.name)
def test_template_keeps_the_content_security_policy(path):
    """The policy forbids inline scripts and styles; a browser would ignore them without a word to the user."""
    text = path.read_text(encoding="utf-8")
    assert re.findall(r"\sstyle\s*=|<style|\son[a-z]{3,}=[\"']|hx-on|javascript:", text) == []
    assert re.findall(r"<script(?![^>]*\bsrc=)(?![^>]*application/json)[^>]*>", text) == []
    assert "|safe" not in text.replace(" ", "")
