"""The topics on which the broker keeps a message of this device.

A file remembers them, so that a message that is no longer wanted is cleared: of a removed camera, of a feature that is
off now, of another site or device name. It is forgotten once the broker has acknowledged that.
"""

from __future__ import annotations

import json
import logging
import threading
from collections.abc import Collection
from pathlib import Path

from edge.durable import write_durably

log = logging.getLogger(__name__)

_MAX_TOPICS = 5000


class RetainedTopics:
    """The topics of one device; from any thread."""

    def __init__(self, path: Path) -> None:
        """Read the file; a missing or damaged one counts as empty."""
        self._path, self._lock = path, threading.Lock()
        self._topics = _read(path)

    def add(self, topics: Collection[str]) -> None:
        """Remember topics, before anything is published on them."""
        with self._lock:
            if not self._topics.issuperset(topics):
                self._topics.update(topics)
                self._write()

    def others(self, wanted: Collection[str]) -> list[str]:
        """Return the remembered topics that are not wanted any more."""
        with self._lock:
            return sorted(self._topics.difference(wanted))

    def forget(self, topic: str) -> None:
        """Forget a topic that the broker has cleared."""
        with self._lock:
            if topic in self._topics:
                self._topics.remove(topic)
                self._write()

    def _write(self) -> None:
        try:
            write_durably(self._path, json.dumps(sorted(self._topics)[:_MAX_TOPICS]).encode(), 0o600)
        except OSError as error:
            log.warning("%s: cannot write: %s; retained messages may stay on the broker", self._path, error.strerror)


def _read(path: Path) -> set[str]:
    try:
        found = json.loads(path.read_bytes())
    except FileNotFoundError:
        return set()
    except (OSError, ValueError, RecursionError) as error:
        log.warning("%s: cannot read: %s; retained messages may stay on the broker", path, error)
        return set()
    return {topic for topic in found if isinstance(topic, str)} if isinstance(found, list) else set()
