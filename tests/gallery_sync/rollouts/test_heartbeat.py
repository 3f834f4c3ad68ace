"""When the controller looked last, for people."""

from __future__ import annotations

from gallery_sync.cli import main
from gallery_sync.rollouts.heartbeat import Seen, forget_seen, read_seen, write_seen


def test_a_look_is_remembered_until_the_controller_ends(tmp_path):
    assert read_seen(tmp_path) is None
    write_seen(tmp_path, Seen(1000.0, 30.0))
    seen = read_seen(tmp_path)
    assert seen == Seen(1000.0, 30.0)
    assert seen.is_alive(1090.0)
    assert not seen.is_alive(1101.0)
    forget_seen(tmp_path)
    assert read_seen(tmp_path) is None


def test_damaged_file_counts_as_none(tmp_path):
    for text in ("", "{}", "[1]", '{"at": "x", "every_s": 1}', '{"at": 1e999, "every_s": null}', "{" * 99, "[" * 4000):
        (tmp_path / "rollouts").mkdir(exist_ok=True)
        (tmp_path / "rollouts/controller.seen").write_text(text)
        assert read_seen(tmp_path) is None


def test_controller_that_ends_leaves_none(repo, capsys):
    args = [
        "rollout",
        "run",
        str(repo),
        "--keys",
        str(repo.with_name("repo.keys")),
        "--blind",
        "--until-end",
        "--every",
        "0s",
    ]
    assert main(args) == 0
    assert read_seen(repo) is None
    assert "no rollout is under way" in capsys.readouterr().out
