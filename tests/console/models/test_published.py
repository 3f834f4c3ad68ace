"""The newest pair of a repository, as the console recognises with it."""

from __future__ import annotations

import json

import pytest

from console.models.models import Models
from console.models.published import PublishedPairs
from console.settings import Settings
from edge.errors import ConsoleError, SyncError
from edge.gallery.generation import read_gallery
from tests.sync_samples import make_repository, publish_release


def test_newest_release_is_made_and_old_ones_are_removed(tmp_path):
    publish_release(tmp_path, "one", 1, 3)
    models = Models(Settings(tmp_path / "data", repository=tmp_path / "repo"))
    (listed,) = models.choices()
    assert listed.name == "Published release 1: one"
    assert not listed.bundle.exists()
    first = models.choice("repository")
    assert json.loads((first.bundle / "bundle.json").read_text())["bundle_id"] == "one"
    assert read_gallery(first.gallery).items == 3
    publish_release(tmp_path, "one", 1, 5)
    assert read_gallery(models.choice().gallery).items == 5
    publish_release(tmp_path, "two", 2, 5)
    assert models.choice().name == "Published release 3: two"
    assert len(list((tmp_path / "data" / "models").iterdir())) == 2
    assert not first.bundle.exists()


def test_repository_without_a_release_is_no_choice(tmp_path):
    make_repository(tmp_path / "repo")
    models = Models(Settings(tmp_path / "data", repository=tmp_path / "repo"))
    assert models.choices() == []
    with pytest.raises(ConsoleError, match="has no release yet"):
        PublishedPairs(tmp_path / "repo", tmp_path / "cache").make()


def test_damaged_object_is_an_error_and_nothing_is_left(tmp_path):
    publish_release(tmp_path, "one", 1, 3)
    for one in (tmp_path / "repo" / "objects").rglob("*"):
        if one.is_file() and b"embedder of one" in one.read_bytes():
            one.write_bytes(b"damaged")
    pairs = PublishedPairs(tmp_path / "repo", tmp_path / "cache")
    with pytest.raises((ConsoleError, SyncError)):
        pairs.make()
    assert list((tmp_path / "cache").iterdir()) == []


def test_folder_that_is_no_repository_is_no_choice(tmp_path):
    (tmp_path / "repo").mkdir()
    assert Models(Settings(tmp_path / "data", repository=tmp_path / "repo", is_demo=True)).choice().id == "demo"
