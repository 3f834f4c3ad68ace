"""Jobs: child processes that train, evaluate and pack."""

from __future__ import annotations

from console.settings import Settings
from console.storage.database import Database


class Jobs:
    """The jobs of a console; they outlive its restarts."""

    def __init__(self, settings: Settings, database: Database) -> None:
        self._settings, self._database = settings, database
