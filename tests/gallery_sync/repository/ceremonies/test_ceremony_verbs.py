from __future__ import annotations

import io
import json
import shlex
import subprocess
from datetime import datetime, timezone
from pathlib import Path

import pytest

from gallery_sync.cli import main
from tests.printed import blocks_of, first_that_differs
from tests.signing_samples import client, development

PAGE = Path(__file__).parents[4] / "docs/how-to/sign-releases.md"


def run(capsys, *words: object) -> tuple[int, str, str]:
    code = main([str(word) for word in words])
    printed = capsys.readouterr()
    return code, printed.out, printed.err


def act(capsys, line: str) -> str:
    """Run a line of a page as a shell would, but edge-sync in this process."""
    if line.startswith("for "):
        variable, values, body = (
            line.removeprefix("for ").replace("; done", "").partition(" in ")[0],
            *(line.partition(" in ")[2].removesuffix("; done").split("; do ", 1)),
        )
        return "".join(act(capsys, body.replace(f"${variable}", value)) for value in values.split())
    if not line.startswith("edge-sync"):
        return subprocess.run(["bash", "-c", line], check=True, capture_output=True, text=True).stdout
    words = [
        str(name) for word in shlex.split(line)[1:] for name in (sorted(Path().glob(word)) if "*" in word else [word])
    ]
    code, out, err = run(capsys, *words)
    assert code == 0, f"{line}: {err}"
    return out


def test_page_runs_as_printed(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    for block in blocks_of(PAGE):
        if block.kind == "sh":
            lines = [line for line in block.commands.splitlines() if not line.startswith("source ")]
            came = "".join(act(capsys, line) for line in lines)
            assert block.output is None or first_that_differs(block.output, came) is None
    device = client(tmp_path, Path("build/shop").absolute())
    assert device.read(Path("build/shop").absolute(), now=datetime.now(timezone.utc)) == []


def test_development_is_said_loudly(tmp_path, capsys):
    code, out, err = run(capsys, "init", tmp_path / "repo", "--line", "demo", "--development")
    assert code == 0
    assert "NOT FOR PRODUCTION" in err
    assert "published: root 1" in out


def test_keys_inside_the_repository_are_refused(tmp_path, capsys):
    repo = tmp_path / "repo"
    code, _, err = run(capsys, "init", repo, "--line", "demo", "--development", "--keys", repo / "keys")
    assert code == 1
    assert "its web server would publish them" in err


def test_repository_of_nobody_is_refused(tmp_path, capsys):
    code, _, err = run(capsys, "init", tmp_path / "repo", "--line", "demo")
    assert code == 1
    assert "role root: found 0 keys, expected 2 or more" in err
    assert err.count("\n") == 1


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--key", "king=a.pub"], "expected ROLE=FILE.pub"),
        (["--key", "root"], "expected ROLE=FILE.pub"),
        (["--key", "root=missing.pub"], "is missing; check the path"),
        (["--threshold", "root=x"], "expected ROLE=N"),
        (["--threshold", "root=0"], "expected ROLE=N"),
    ],
)
def test_wrong_keys_are_one_clear_error(tmp_path, capsys, words, said):
    code, _, err = run(capsys, "init", tmp_path / "repo", "--line", "demo", *words)
    assert code == 1
    assert said in err
    assert err.count("\n") == 1


def test_interrupted_init_goes_on_with_the_keys_that_it_made(tmp_path, monkeypatch, capsys):
    for name in ("alice", "bob"):
        run(capsys, "key", "new", tmp_path, name)
    words = ["init", tmp_path / "repo", "--line", "demo", "--key", f"root={tmp_path}/alice.pub"]
    words += ["--key", f"root={tmp_path}/bob.pub"]
    assert run(capsys, *words)[0] == 0
    made = (tmp_path / "repo.keys/timestamp.pem").read_bytes()
    next((tmp_path / "repo.keys/drafts").iterdir()).unlink()
    assert run(capsys, *words)[0] == 0
    assert (tmp_path / "repo.keys/timestamp.pem").read_bytes() == made


def test_nothing_is_signed_without_yes(tmp_path, monkeypatch, capsys):
    for name in ("alice", "bob"):
        run(capsys, "key", "new", tmp_path, name)
    words = [word for name in ("alice", "bob") for word in ("--key", f"root={tmp_path}/{name}.pub")]
    answer = json.loads(run(capsys, "init", tmp_path / "repo", "--line", "demo", *words, "--json")[1])
    before = Path(answer["draft"]).read_bytes()
    for typed in ("", "y\n", "no\n"):
        monkeypatch.setattr("sys.stdin", io.StringIO(typed))
        code, _, err = run(capsys, "sign", answer["draft"], "--key", tmp_path / "alice.pem")
        assert code == 1
        assert "+ alice" in err
    assert Path(answer["draft"]).read_bytes() == before
    monkeypatch.setattr("sys.stdin", io.StringIO("yes\n"))
    assert run(capsys, "sign", answer["draft"], "--key", tmp_path / "alice.pem")[0] == 0


@pytest.mark.parametrize(
    "words", [[], ["--role", "gallery"], ["--new"], ["--role", "root", "--role", "targets", "--revoke", "a"]]
)
def test_rotation_of_nothing_is_refused(tmp_path, capsys, words):
    repo, _ = development(tmp_path)
    code, _, err = run(capsys, "rotate", repo, *words)
    assert code == 1
    assert err.count("\n") == 1


def test_keys_are_listed_as_json(tmp_path, capsys):
    repo, _ = development(tmp_path)
    answer = json.loads(run(capsys, "key", "list", repo, "--json")[1])
    assert answer["timestamp"]["threshold"] == 1
    assert answer["timestamp"]["keys"][0]["here"] == "file2:timestamp.pem"


def test_missing_draft_is_not_a_lost_repository(tmp_path, capsys):
    assert main(["sign", str(tmp_path / "draft.json")]) == 1
    assert capsys.readouterr().err == f"edge-sync: {tmp_path / 'draft.json'}: is missing; check the path\n"
