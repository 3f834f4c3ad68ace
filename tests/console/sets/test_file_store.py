"""A picture and its row are both there, or neither is: the disk fills, the power fails, two send at once."""

from __future__ import annotations

import errno
import os
from concurrent.futures import ThreadPoolExecutor

import pytest

from console.sets import file_store
from console.sets.file_store import INCOMING, FileStore
from console.sets.sets import find_set
from console.sets.uploads import Upload, take_upload
from console.storage.database import open_database
from console.tables import TABLES
from edge.errors import ConsoleError
from tests.console.sets.sets_samples import encoded

_CALLS = ["make_folder", "fsync_folder", "insert_picture", "_link"]


class PowerCutError(BaseException):
    """The process ends here."""


def cut(*_args, **_more):
    raise PowerCutError


@pytest.mark.parametrize("call", _CALLS)
def test_power_cut_leaves_no_half_picture(room, monkeypatch, call):
    set_id = room.make()
    room.upload(set_id, {"before.jpg": encoded(1)})
    monkeypatch.setattr(file_store, call, cut)
    monkeypatch.setattr(file_store.Path, "unlink", lambda *_, **__: None)  # nobody cleans up after a power cut
    with pytest.raises(PowerCutError):
        room.upload(set_id, {"a.jpg": encoded(2)})
    monkeypatch.undo()
    room.database.close()
    room.database = open_database(room.settings.data, TABLES)
    FileStore(room.settings, room.database).clean_up()
    assert [one.name for one in room.pictures(set_id)] == ["before.jpg"]
    assert [path.name for path in room.files()] == ["before.jpg"]
    assert room.files() == [room.pictures(set_id)[0].path]


def test_power_cut_after_the_row_keeps_the_picture(room, monkeypatch):
    set_id = room.make()
    monkeypatch.setattr(file_store.Path, "unlink", lambda *_, **__: None)
    room.upload(set_id, {"a.jpg": encoded(1)})
    monkeypatch.undo()
    assert len(list((room.settings.uploads / INCOMING).iterdir())) == 1
    assert room.store.clean_up() == 1
    (picture,) = room.pictures(set_id)
    assert picture.path.read_bytes() == encoded(1)


def test_full_disk_is_said_and_loses_nothing(room, monkeypatch):
    set_id = room.make()
    room.upload(set_id, {"a.jpg": encoded(1)})

    def full(*_args):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(file_store.os, "fsync", full)
    with pytest.raises(ConsoleError, match="disk of the console is full") as error:
        room.upload(set_id, {"b.jpg": encoded(2)})
    assert error.value.reason == "storage"
    monkeypatch.undo()
    assert [path.name for path in room.files()] == ["a.jpg"]
    assert room.upload(set_id, {"b.jpg": encoded(2)})[0].outcome == "added"


def test_file_system_without_links_is_used(room, monkeypatch):
    def no_links(*_args):
        raise OSError(errno.EPERM, os.strerror(errno.EPERM))

    monkeypatch.setattr(file_store.os, "link", no_links)
    set_id = room.make()
    room.upload(set_id, {"a.jpg": encoded(1)})
    assert room.files() == [room.pictures(set_id)[0].path]


def test_same_picture_sent_by_many_at_once_is_one(room):
    set_id = room.make()
    sent = room.folder / "sent"
    sent.write_bytes(encoded(1))
    with room.database.read() as rows:
        upload = Upload(find_set(rows, set_id), "mia", 1.0)
    with ThreadPoolExecutor(8) as many:
        taken = [
            one
            for found in many.map(lambda n: list(take_upload(room.store, upload, f"{n}.jpg", sent)), range(8))
            for one in found
        ]
    assert sorted(one.outcome for one in taken) == ["added", *["known"] * 7]
    assert len(room.files()) == 1


def test_deleted_set_takes_its_uploads_along(room):
    set_id = room.make()
    room.upload(set_id, {"shop/a.jpg": encoded(1)})
    gone = room.keeper.delete("mia", set_id)
    assert not gone.folder.exists()
    assert room.files() == []
    with pytest.raises(ConsoleError, match="no set"):
        room.upload(set_id, {"b.jpg": encoded(2)})


def test_half_deleted_folder_goes_at_the_next_start(room, monkeypatch):
    set_id = room.make()
    room.upload(set_id, {"a.jpg": encoded(1)})
    monkeypatch.setattr(file_store.shutil, "rmtree", lambda *_, **__: None)
    room.keeper.delete("mia", set_id)
    monkeypatch.undo()
    assert len(room.files()) == 1
    room.store.clean_up()
    assert room.files() == []
