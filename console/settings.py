"""What an operator gave the console on its command line: folders and addresses. Read once, never changed."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Settings:
    """Where the console keeps its own data, and what else it works on; None: not given."""

    data: Path  # absolute: database, uploads, thumbnails, runs
    repository: Path | None = None  # signed repository to curate and publish
    keys: Path | None = None  # folder of signing keys, on this server; None: changes are left to be signed elsewhere
    fleet: str | None = None  # URL of the fleet's server
    fleet_token: str | None = None
    fleet_ca: Path | None = None
    device: Path | None = None  # state folder of a device on this machine
    inbox: Path | None = None  # folder that devices upload to
    folders: tuple[Path, ...] = ()  # absolute: sets of pictures may only be made of folders below these
    is_demo: bool = False

    @property
    def uploads(self) -> Path:
        """The folder of uploaded pictures."""
        return self.data / "uploads"

    @property
    def incoming(self) -> Path:
        """The folder of uploads that arrive; emptied when the console starts."""
        return self.data / "incoming"

    @property
    def thumbnails(self) -> Path:
        """The cache of thumbnails; may be deleted."""
        return self.data / "thumbnails"

    @property
    def runs(self) -> Path:
        """The folder of training runs, a folder for each job."""
        return self.data / "runs"
