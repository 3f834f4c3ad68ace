"""The bundles and galleries that the console can recognise with, loaded when they are first used."""

from __future__ import annotations

from console.settings import Settings


class Models:
    """Bundles and galleries; any thread may use them."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
