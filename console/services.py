"""What handlers of requests use: built once when the console starts."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from console.access.gate import Gate
from console.background.tasks import Tasks
from console.fleet.fleet import Fleet
from console.galleries.repository import SignedGallery
from console.models.models import Models
from console.review.review import Review
from console.search.turns import Turns
from console.settings import Settings
from console.storage.database import Database
from console.training.jobs import Jobs


@dataclass(frozen=True, slots=True)
class Services:
    """The parts of a running console."""

    settings: Settings
    database: Database
    gate: Gate  # users, sessions, tokens, audit log
    gallery: SignedGallery  # of the signed repository
    models: Models  # bundles and galleries to recognise with
    turns: Turns  # of searches
    review: Review  # of identities
    jobs: Jobs  # child processes
    tasks: Tasks  # threads
    fleet: Fleet  # its server and the signed repository
    clock: Callable[[], float]  # Unix time, seconds
