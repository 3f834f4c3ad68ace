"""Curves, progress and logs: read from what trainers write, whatever it is."""

from __future__ import annotations

import pytest

from console.training.curves import overfitting, read_curves
from console.training.log_file import last_line, read_tail
from console.training.progress import share_of


def write(folder, *lines):
    folder.mkdir(parents=True)
    (folder / "metrics.csv").write_text("\n".join(lines) + "\n")


def test_curves_of_each_run_are_read(tmp_path):
    write(tmp_path / "run/bottle", "epoch,lr,loss,loss_class,recall_1,seconds", "1,0.1,2,1.5,,3", "2,0.1,1,0.5,0.75,3")
    write(tmp_path / "run/car", "epoch,loss", "1,4")
    bottle, car = read_curves(tmp_path)
    assert (bottle.name, car.name) == ("bottle", "car")
    assert bottle.columns == {"loss": (2, 1), "loss_class": (1.5, 0.5), "recall_1": (None, 0.75)}
    assert bottle.metrics == {"recall_1": (None, 0.75)}
    assert bottle.final == {"loss": 1, "loss_class": 0.5, "recall_1": 0.75}


@pytest.mark.parametrize("text", ["", "epoch,loss\n", "\0\0", "epoch,loss\n1,nan\n2,1e999\n", '"'])
def test_damaged_history_is_no_error(tmp_path, text):
    (tmp_path / "metrics.csv").write_text(text)
    assert all(value is None for one in read_curves(tmp_path) for value in one.columns.get("loss", ()))


def test_links_are_not_followed(tmp_path):
    write(tmp_path / "elsewhere", "epoch,loss", "1,4")
    (tmp_path / "job").mkdir()
    (tmp_path / "job/run").symlink_to(tmp_path / "elsewhere")
    assert read_curves(tmp_path / "job") == []


@pytest.mark.parametrize(
    ("metric", "words"), [((0.5, 0.9, 0.6), "may overfit"), ((0.5, 0.8, 0.9), "No sign"), ((0.5,), "")]
)
def test_overfitting_is_said_in_plain_words(tmp_path, metric, words):
    rows = [f"{n},{4 / n},{value}" for n, value in enumerate(metric, 1)]
    write(tmp_path / "run", "epoch,loss,recall_1", *rows)
    (curves,) = read_curves(tmp_path)
    said = overfitting(curves)
    assert words in said
    assert bool(words) == bool(said)


def test_rising_loss_on_held_out_pictures_is_overfitting(tmp_path):
    write(tmp_path / "run", "epoch,loss,loss_val", "1,4,3", "2,2,2", "3,1,4")
    assert "It overfits" in overfitting(read_curves(tmp_path)[0])


@pytest.mark.parametrize(
    ("line", "share"),
    [
        ("trained 3/4:  50%|#####     | 2/4 [00:01<00:01, loss 1.2]", 0.625),
        ("reading photos:  30%|###       | 3/10", 0.3),
        ("card 9/3:  50%|", 0.5),
        ("no bar", None),
        ("999%|", 1.0),
    ],
)
def test_progress_is_read_from_bars(line, share):
    assert share_of(line) == share


def test_log_is_shown_as_a_terminal_shows_it(tmp_path):
    (tmp_path / "log").write_bytes(b"a\r 50%|\r100%|\n\x1b[31mred\x1b[0m\x00 \xff\nlast\n\n")
    text = read_tail(tmp_path / "log", 1000)
    assert text.splitlines() == ["100%|", "red \N{REPLACEMENT CHARACTER}", "last", ""]
    assert last_line(text) == "last"
    assert read_tail(tmp_path / "log", 8) == "last\n\n"
    assert read_tail(tmp_path / "none", 8) == ""
