"""The tables of all rooms, in the order in which they are created."""

from __future__ import annotations

from console.access.audit import TABLES as AUDIT
from console.access.schema import TABLES as ACCESS
from console.boxes.schema import TABLES as BOXES
from console.galleries.schema import TABLES as GALLERIES
from console.review.schema import TABLES as REVIEW
from console.sets.schema import TABLES as SETS
from console.training.schema import TABLES as JOBS

TABLES: tuple[str, ...] = (AUDIT, ACCESS, SETS, JOBS, REVIEW, GALLERIES, BOXES)
