"""Small documents in the state folder."""

from __future__ import annotations

import pytest

from gallery_sync.formats.fields import Document, Sequence
from gallery_sync.state.documents import read_document, write_document
from gallery_sync.transport.errors import StorageError


class Note(Document):
    """A document."""

    kind = "note"
    number: Sequence


def test_document_is_there_again(tmp_path):
    path = tmp_path / "new" / "note.json"
    assert read_document(Note, path, 100) is None
    write_document(path, Note(number=7))
    assert read_document(Note, path, 100) == Note(number=7)
    assert path.stat().st_mode & 0o777 == 0o640


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"number": 0}', b'{"number": 1}' + b" " * 100])
def test_damaged_or_large_document_is_none(tmp_path, content, caplog):
    path = tmp_path / "note.json"
    path.write_bytes(content)
    assert read_document(Note, path, 100) is None
    assert "is ignored" in caplog.text


def test_folder_in_its_place_is_removed(tmp_path):
    path = tmp_path / "note.json"
    path.mkdir()
    write_document(path, Note(number=1))
    assert read_document(Note, path, 100) == Note(number=1)


def test_disk_that_cannot_be_written_is_an_error(tmp_path):
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(StorageError, match="cannot write"):
        write_document(tmp_path / "file" / "note.json", Note(number=1))
