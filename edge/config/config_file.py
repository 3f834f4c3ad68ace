"""The device's configuration file, which is also read while the device runs, its last good copy, and its overlay.

Rules this module keeps:
1. The device always comes up: an overlay that cannot be used is ignored, and only the device's own file counts.
2. What is loaded depends only on the two files, not on what was loaded earlier.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Mapping
from pathlib import Path

from edge.config.camera_url import parse_source
from edge.config.overlay import Overlay, merged, overlay_path, read_named, read_overlay
from edge.config.schema import DeviceConfig
from edge.config.yaml_file import Values, read_text, read_values, typed_values
from edge.durable import write_durably
from edge.errors import ConfigError

log = logging.getLogger(__name__)

LAST_GOOD_FILE = "config.good.yaml"  # in state_dir; a copy of the file, without substituted ${variables}


class ConfigFile:
    """One YAML file. `problem` says why it cannot be used; None if it can."""

    def __init__(
        self,
        path: Path,
        environment: Mapping[str, str],
        state_dir: Path | None = None,
        overlay: Path | None = None,
    ) -> None:
        """Remember the path; `load` reads the file.

        Args:
            path: the file.
            environment: values of `${NAME}` and `${NAME:-default}`.
            state_dir: replaces the file's; None: the file's.
            overlay: an overlay that must be usable; None: that of the state folder, which is ignored if it is not.
        """
        self.problem: str | None = None
        self.safe_mode = False  # whether the device runs with the last good copy
        self.overlay: str | None = None  # name and revision of the one in what was loaded last; None: none
        self.overlay_problem: str | None = None  # why the overlay of the state folder is not in it
        self._path, self._environment, self._state_dir, self._named = path, environment, state_dir, overlay
        self._text: str | None = None  # loaded and not yet saved as the last good copy
        self._overlay_path: Path | None = None  # of the state folder; None: nothing was loaded yet
        self._overlay_seen: tuple[int, ...] | None = None  # as it was when it was read last; None: there was none

    def load(self) -> DeviceConfig:
        """Read the file.

        Raises:
            ConfigError: the file is invalid; `problem` holds the message.
        """
        if self._overlay_path is not None:
            self._overlay_seen = _seen(self._overlay_path)
        try:
            text = read_text(self._path)
            config = self._parse(text, self._path)
        except ConfigError as error:
            self.problem = str(error)
            raise
        self._text, self.problem, self.safe_mode = text, None, False
        return config

    def load_or_last_good(self, state_dir: Path) -> DeviceConfig:
        """Read the file or, if it is invalid, the last good copy.

        Raises:
            ConfigError: the file is invalid, and so is the copy, or there is no copy.
        """
        try:
            return self.load()
        except ConfigError as error:
            copy = state_dir / LAST_GOOD_FILE
            try:
                config = self._parse(read_text(copy), copy)
            except ConfigError as copy_error:
                raise ConfigError(f"{error}\nsafe mode is not possible: {copy_error}") from error
            self.safe_mode = True
            log.error("%s; safe mode: running with %s", error, copy)  # noqa: TRY400  the message says it all
            return config

    def save_last_good(self, state_dir: Path) -> None:
        """Save the last loaded text durably: the device runs well with it.

        Raises:
            OSError: the copy cannot be written.
        """
        if self._text is not None:
            write_durably(state_dir / LAST_GOOD_FILE, self._text.encode(), mode=0o600)  # it may contain a password
            self._text = None

    def overlay_changed(self) -> bool:
        """Return whether the overlay of the state folder is another one than at the last load; one call of stat(2)."""
        return self._overlay_path is not None and _seen(self._overlay_path) != self._overlay_seen

    def _parse(self, text: str, path: Path) -> DeviceConfig:
        values = read_values(text, path, self._path.parent, self._environment)
        own = _with_sources(values.config(), str(path))
        state_dir = own.state_dir if self._state_dir is None else self._state_dir
        config = self._overlaid(values, own, state_dir)
        return config if self._state_dir is None else config.model_copy(update={"state_dir": state_dir})

    def _overlaid(self, values: Values, own: DeviceConfig, state_dir: Path) -> DeviceConfig:
        """Return the configuration with the overlay, or the device's own if there is none or it cannot be used."""
        if self._named is not None:
            overlay = read_named(self._named)
            self.overlay = str(overlay)
            return _merged_config(values, overlay)
        self._overlay_path = overlay_path(state_dir)
        self._overlay_seen = _seen(self._overlay_path)
        try:
            found = read_overlay(self._overlay_path)
            config = own if found is None else _merged_config(values, found)
        except ConfigError as error:
            self.overlay, self.overlay_problem = None, str(error)
            log.error("%s; the device runs its own configuration without it", error)  # noqa: TRY400  says it all
            return own
        self.overlay, self.overlay_problem = None if found is None else str(found), None
        return config


def _seen(path: Path) -> tuple[int, ...] | None:
    with contextlib.suppress(OSError):
        about = path.stat()
        return about.st_ino, about.st_size, about.st_mtime_ns
    return None


def _merged_config(values: Values, overlay: Overlay) -> DeviceConfig:
    name = f"overlay {overlay}"
    return _with_sources(typed_values(merged(values.values, overlay), name, values.folder), name)


def _with_sources(config: DeviceConfig, where: str) -> DeviceConfig:
    """Return a configuration whose camera addresses are checked.

    Raises:
        ConfigError: one is wrong.
    """
    for name, camera in config.cameras.items():
        try:
            parse_source(camera.source)
        except ConfigError as error:
            raise ConfigError(f"{where}: cameras.{name}.source: {error}") from error
    return config


class AsWritten(dict[str, str]):
    """An environment in which a variable that is not set has itself as its value, for a check elsewhere."""

    def get(self, name: str, default: str | None = None) -> str | None:  # type: ignore[override]
        """Return the value of a variable."""
        return super().get(name, f"${{{name}}}" if default is None else default)
