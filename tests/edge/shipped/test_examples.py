"""The shipped folders are found, and copied without overwriting anything."""

from __future__ import annotations

import pytest

from edge.errors import ConfigError
from edge.shipped import examples


def test_copies_have_the_names_of_the_checkout(tmp_path):
    written, kept = examples.copy_examples(tmp_path)
    assert kept == 0
    assert written == sum(path.is_file() for path in tmp_path.rglob("*"))
    for name in (
        "configs/camera.yaml",
        "configs/train/embedder.yaml",
        "demo/bundle/bundle.json",
        "systemd/edge.service",
    ):
        assert (tmp_path / name).is_file()


def test_files_that_exist_stay_as_they_are(tmp_path):
    written, _ = examples.copy_examples(tmp_path)
    (tmp_path / "configs/camera.yaml").write_text("mine")
    (tmp_path / "configs/kiosk.yaml").unlink()
    assert examples.copy_examples(tmp_path) == (1, written - 1)
    assert (tmp_path / "configs/camera.yaml").read_text() == "mine"


def test_folder_that_cannot_be_written_is_one_line(tmp_path):
    (tmp_path / "configs").write_text("a file")
    with pytest.raises(ConfigError, match=r"configs/camera.yaml: cannot be written: "):
        examples.copy_examples(tmp_path)


def test_missing_folder_says_to_install_again():
    with pytest.raises(ConfigError, match="is missing from this install; install finesight again"):
        examples.shipped("none")
