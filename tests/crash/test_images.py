"""The recorder and the model of a disk: they see what the suite must find."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from tests.crash.images import Disk, crash_images, write_image
from tests.crash.record import Step, compile_shim, read_log, record


@pytest.fixture(scope="module")
def shim(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return compile_shim(tmp_path_factory.mktemp("shim"))


def images_of(shim: Path, folder: Path, call: str) -> list[dict[str, bytes | None]]:
    disk = Disk(folder)
    return list(crash_images(disk, record(shim, folder, folder.with_name("log"), call)))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "folder"
    made.mkdir()
    (made / "name").write_bytes(b"old")
    return made


CARELESS = "(FOLDER / 'new').write_bytes(b'new content'); (FOLDER / 'new').replace(FOLDER / 'name')"
CAREFUL = "from edge.durable import write_durably; write_durably(FOLDER / 'name', b'new content')"


def test_careless_replacement_leaves_an_empty_or_torn_file(shim, folder):
    names = {image["name"] for image in images_of(shim, folder, CARELESS)}
    assert {b"old", b"", b"new content", bytes(11)} <= names


def test_careful_replacement_leaves_the_old_content_or_the_new_one(shim, folder):
    images = images_of(shim, folder, CAREFUL)
    assert {image["name"] for image in images} == {b"old", b"new content"}
    assert any("name.partial" in image for image in images)


def test_name_that_was_not_flushed_may_be_lost_after_its_content_was(shim, folder):
    call = "import os; f = open(FOLDER / 'a', 'wb'); f.write(b'x'); f.flush(); os.fsync(f.fileno())"
    images = images_of(shim, folder, call)
    assert {b"old"} == {image["name"] for image in images}
    assert {"a" in image for image in images} == {True, False}
    assert b"x" in {image.get("a") for image in images}


def test_names_of_one_folder_are_lost_alone(shim, folder):
    flushed = "(FOLDER / 'b').mkdir(); import os; os.fsync(os.open(FOLDER, 0)); "
    call = flushed + "(FOLDER / 'b/c').touch(); (FOLDER / 'name').unlink()"
    kept = {("b/c" in image, "name" in image) for image in images_of(shim, folder, call)}
    assert kept == {(False, True), (True, True), (True, False), (False, False)}


def test_copies_and_links_are_recorded(shim, folder):
    copied = "import os, shutil; shutil.copyfile(FOLDER / 'name', FOLDER / 'copy'); "
    call = copied + "os.link(FOLDER / 'copy', FOLDER / 'link')"
    images = images_of(shim, folder, call)
    assert images[-1]["name"] == b"old"
    assert any(image.get("copy") == image.get("link") == b"old" for image in images)


@pytest.mark.parametrize("mode", ["delete", "wal"])
def test_every_image_of_a_database_is_a_whole_number_of_transactions(shim, folder, tmp_path, mode):
    call = (
        "import sqlite3; c = sqlite3.connect(FOLDER / 'x.sqlite', isolation_level=None); "
        f"c.execute('pragma journal_mode={mode}'); c.execute('pragma synchronous=full'); "
        "c.execute('create table t (n, filler)'); "
        "[(c.execute('begin'), c.executemany('insert into t values (?, ?)', [(n, 'x' * 900)] * 5), c.execute('commit'))"
        " for n in range(4)]; c.close()"
    )
    counts = set()
    images = images_of(shim, folder, call)
    for number, image in enumerate(images):
        write_image(image, tmp_path / str(number))
        with closing(sqlite3.connect(tmp_path / str(number) / "x.sqlite")) as connection:
            assert connection.execute("pragma integrity_check").fetchone() == ("ok",)
            tables = connection.execute("select count(*) from sqlite_master").fetchone()[0]
            counts.add(connection.execute("select count(*) from t").fetchone()[0] if tables else 0)
    assert counts == {0, 5, 10, 15, 20}
    assert len(images) > 100


def test_log_is_read():
    log = b"create 7 1\na\nwrite 7 3 2\n\n\n\nfsync 7 0\n\nrename 1 3\nab/c\nunlink 1\na\n"
    assert read_log(log) == [
        Step("create", 7, path="a"),
        Step("write", 7, 3, b"\n\n"),
        Step("fsync", 7, 0),
        Step("rename", path="a", to="b/c"),
        Step("unlink", path="a"),
    ]
