"""The files of a configuration overlay on a device, and the changes between them.

    <state>/config/overlay.json     what `edge run` uses, see edge.config.overlay
    <state>/config/candidate.json   what is about to be taken
    <state>/config/previous.json    the overlay before, while another one is on trial; missing: there was none
    <state>/config/trial.json       the trial; while it exists, the overlay is not confirmed

Rules this module keeps:
1. A trial is on the disk, with the overlay before it, before the overlay changes.
2. Each change may be repeated after a crash at any place, and leads to the same end.
3. Going back renames a file that is there already: a full disk does not stop it.
4. A trial that cannot be read, or whose overlay before is gone, ends with the device's own file alone.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
from pathlib import Path
from typing import Annotated, ClassVar, Literal

from pydantic import Field

from edge.config.overlay import FOLDER, LARGEST_BYTES, Overlay, overlay_bytes, overlay_path, parse_overlay
from edge.durable import fsync_folder, make_folder, set_aside, write_durably
from edge.errors import ConfigError, SyncError
from gallery_sync.formats.fields import Count, Document, canonical_json, parse
from gallery_sync.formats.reports import MOST_CAMERAS
from gallery_sync.fresh_files import read_regular

log = logging.getLogger(__name__)

CANDIDATE, PREVIOUS, TRIAL = "candidate.json", "previous.json", "trial.json"
_LARGEST_TRIAL_BYTES = 64 << 10
_Seconds = Annotated[float, Field(ge=0.0, allow_inf_nan=False)]
_Hash = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
_Text = Annotated[str, Field(max_length=200)]


class Trial(Document):
    """An overlay that is not confirmed yet."""

    kind: ClassVar[str] = "configuration trial"

    schema_version: Literal[1] = Field(default=1, alias="schema")
    overlay: _Text | None = None  # name and revision; None: the device's own file alone
    sha256: _Hash | None = None  # of overlay.json with it; None: there is none then
    previous_sha256: _Hash | None = None  # of overlay.json before; None: there was none
    cameras: Annotated[list[_Text], Field(max_length=MOST_CAMERAS)]  # that were online before
    seconds: _Seconds  # that it takes
    began_s: _Seconds  # the machine's monotonic clock, of this boot of the machine
    boot_id: _Text  # of that boot
    boots: Count = 0  # of the machine since it began
    request: _Text  # id of the command


class ConfigFiles:
    """The overlay files of one device. One thread uses it."""

    def __init__(self, state_dir: Path) -> None:
        """Use a state folder; nothing is read yet."""
        self.folder = state_dir / FOLDER
        self.overlay_path = overlay_path(state_dir)
        self.candidate_path = self.folder / CANDIDATE
        self._previous, self._trial = self.folder / PREVIOUS, self.folder / TRIAL

    def overlay(self) -> Overlay | None:
        """Return the overlay that `edge run` uses; None: there is none, or it is damaged."""
        return _read(self.overlay_path)

    def confirmed(self) -> Overlay | None:
        """Return the overlay that is confirmed: not one on trial."""
        return _read(self._previous if self.is_on_trial else self.overlay_path)

    @property
    def is_on_trial(self) -> bool:
        """Whether a trial is under way; one that cannot be read is one, too."""
        return self._trial.exists()

    def trial(self) -> Trial | None:
        """Return the trial that is under way; None: there is none.

        Raises:
            SyncError: it is damaged.
        """
        try:
            return parse(Trial, read_regular(self._trial, _LARGEST_TRIAL_BYTES), str(self._trial))
        except FileNotFoundError:
            return None
        except OSError as error:
            raise SyncError(f"{self._trial}: cannot read: {error.strerror or error}") from error

    def propose(self, overlay: Overlay) -> str:
        """Write a candidate; return the hash of its file.

        Raises:
            OSError: the disk failed.
        """
        data = overlay_bytes(overlay)
        make_folder(self.folder)
        set_aside(self.candidate_path)
        write_durably(self.candidate_path, data, mode=0o640)
        return hashlib.sha256(data).hexdigest()

    def sha256(self) -> str | None:
        """Return the hash of overlay.json; None: there is none."""
        return _sha256(self.overlay_path)

    def begin(self, trial: Trial) -> None:
        """Keep the overlay before, and note the trial. The overlay is as it was.

        Raises:
            OSError: the disk failed.
        """
        set_aside(self._previous)
        if trial.previous_sha256 is None:
            self._remove(self._previous)
        else:
            write_durably(self._previous, read_regular(self.overlay_path, LARGEST_BYTES), mode=0o640)
        self.note(trial)

    def note(self, trial: Trial) -> None:
        """Note how far a trial is.

        Raises:
            OSError: the disk failed.
        """
        set_aside(self._trial)
        write_durably(self._trial, canonical_json(trial) + b"\n", mode=0o640)

    def take(self, trial: Trial) -> None:
        """Let `edge run` use the candidate, or no overlay.

        Raises:
            OSError: the disk failed.
        """
        if trial.sha256 is None:
            self._remove(self.overlay_path)
        else:
            set_aside(self.overlay_path)
            self.candidate_path.replace(self.overlay_path)
            fsync_folder(self.folder)

    def confirm(self) -> None:
        """End the trial; the overlay stays.

        Raises:
            OSError: the disk failed; the trial goes on.
        """
        self._remove(self._trial)
        self.tidy()

    def mend(self) -> Trial:
        """Replace a trial that cannot be read by one that leads back, and return it.

        Raises:
            OSError: the disk failed; repeat it.
        """
        trial = Trial(
            sha256=self.sha256(),
            previous_sha256=_sha256(self._previous),
            cameras=[],
            seconds=0.0,
            began_s=0.0,
            boot_id="unknown",
            request="",
        )
        self.note(trial)
        return trial

    def revert(self, trial: Trial) -> None:
        """End the trial and return to the overlay before.

        Raises:
            OSError: the disk failed; repeat it.
        """
        wanted = trial.previous_sha256
        if wanted is None:
            self._remove(self.overlay_path)
        elif _sha256(self._previous) == wanted:
            set_aside(self.overlay_path)
            self._previous.replace(self.overlay_path)
            fsync_folder(self.folder)
        elif self.sha256() != wanted:  # else an earlier call came so far
            log.error("%s: the overlay before is lost; the device runs its own configuration", self._previous)
            self._remove(self.overlay_path)
        self._remove(self._trial)
        self.tidy()

    def tidy(self) -> None:
        """Remove what no trial needs."""
        for path in (self._previous, self.candidate_path):
            with contextlib.suppress(OSError):
                path.unlink(missing_ok=True)

    def _remove(self, path: Path) -> None:
        if path.exists() or path.is_symlink():
            set_aside(path)
            path.unlink(missing_ok=True)
            fsync_folder(self.folder)


def current(state_dir: Path) -> str | None:
    """Return name and revision of the overlay that is confirmed on a device, for its report; None: there is none."""
    overlay = ConfigFiles(state_dir).confirmed()
    return None if overlay is None else str(overlay)


def why_busy(state_dir: Path) -> str | None:
    """Return why nothing else may be tried on a device: a configuration is on trial; None if none is."""
    return "a configuration is on trial; wait until it ends" if ConfigFiles(state_dir).is_on_trial else None


def _read(path: Path) -> Overlay | None:
    try:
        return parse_overlay(read_regular(path, LARGEST_BYTES), str(path))
    except FileNotFoundError:
        return None
    except (OSError, ConfigError) as error:
        log.warning("%s", error)
        return None


def _sha256(path: Path) -> str | None:
    try:
        return hashlib.sha256(read_regular(path, LARGEST_BYTES)).hexdigest()
    except FileNotFoundError:
        return None
    except OSError as error:
        log.warning("%s: cannot read: %s", path, error)
        return None
