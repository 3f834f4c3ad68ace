"""Fixtures of the tests of sets."""

from __future__ import annotations

import pytest

from console.storage.database import open_database
from console.tables import TABLES
from tests.console.sets.sets_samples import Room


@pytest.fixture(scope="session")
def empty_database(tmp_path_factory):
    """The bytes of a database with all tables: making them takes longer than most tests."""
    database = open_database(tmp_path_factory.mktemp("empty"), TABLES)
    database.close()
    return database.path.read_bytes()


@pytest.fixture
def make_room(tmp_path, empty_database):
    """Return a function that opens the sets of a console with settings."""
    rooms = []

    def make(**settings):
        (tmp_path / "data").mkdir()
        (tmp_path / "data" / "console.sqlite").write_bytes(empty_database)
        rooms.append(Room(tmp_path, **settings))
        return rooms[-1]

    yield make
    for one in rooms:
        one.close()


@pytest.fixture
def room(make_room):
    return make_room()
