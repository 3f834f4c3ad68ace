"""What handlers of requests use: built once when the console starts."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from console.access.gate import Gate
from console.background.tasks import Tasks
from console.models.models import Models
from console.settings import Settings
from console.storage.database import Database
from console.training.jobs import Jobs


@dataclass(frozen=True, slots=True)
class Services:
    """The parts of a running console."""

    settings: Settings
    database: Database
    gate: Gate  # users, sessions, tokens, audit log
    models: Models  # bundles and galleries to recognise with
    jobs: Jobs  # child processes
    tasks: Tasks  # threads
    clock: Callable[[], float]  # Unix time, seconds
