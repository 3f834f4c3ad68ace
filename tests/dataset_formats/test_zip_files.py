"""Zip files whose directory is a bomb."""

from __future__ import annotations

import io
import zipfile

import pytest

from dataset_formats.zip_files import open_zip
from edge.errors import DataError


def zipped(names):
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w") as packed:
        for name in names:
            packed.writestr(name, b"x")
    return data


def test_large_directory_is_not_read():
    data = zipped(f"{number}{'x' * 200}" for number in range(400))
    with pytest.raises(DataError, match="more than 10 files"):
        open_zip(data, 10)


def test_entries_of_a_usual_directory_are_read():
    with open_zip(zipped(["a" * 60_000, "b"]), 2) as packed:
        assert packed.read("b") == b"x"
        assert len(packed.infolist()) == 2


def test_no_zip_file_is_refused():
    with pytest.raises(zipfile.BadZipFile):
        open_zip(io.BytesIO(b"PK" * 100), 2)
