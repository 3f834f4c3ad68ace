"""The tables of all rooms, in the order in which they are created."""

from __future__ import annotations

from console.access.audit import TABLES as AUDIT
from console.sets.schema import TABLES as SETS

TABLES: tuple[str, ...] = (AUDIT, SETS)
