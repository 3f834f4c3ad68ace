"""Lists every table. Their modules import training libraries only inside functions, so that `--help` is fast."""

from __future__ import annotations

from trainer.tables.table import Table

TABLES: tuple[Table, ...] = ()
