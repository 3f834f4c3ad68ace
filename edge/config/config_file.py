"""The device's configuration file, which is also read while the device runs, and the last good copy of it."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path

from edge.config.camera_url import parse_source
from edge.config.schema import DeviceConfig
from edge.config.yaml_file import parse_config, read_text
from edge.durable import write_durably
from edge.errors import ConfigError

log = logging.getLogger(__name__)

LAST_GOOD_FILE = "config.good.yaml"  # in state_dir; a copy of the file, without substituted ${variables}


class ConfigFile:
    """One YAML file. `problem` says why it cannot be used; None if it can."""

    def __init__(self, path: Path, environment: Mapping[str, str], state_dir: Path | None = None) -> None:
        """Remember the path; `load` reads the file.

        Args:
            path: the file.
            environment: values of `${NAME}` and `${NAME:-default}`.
            state_dir: replaces the file's; None: the file's.
        """
        self.problem: str | None = None
        self.safe_mode = False  # whether the device runs with the last good copy
        self._path, self._environment, self._state_dir = path, environment, state_dir
        self._text: str | None = None  # loaded and not yet saved as the last good copy

    def load(self) -> DeviceConfig:
        """Read the file.

        Raises:
            ConfigError: the file is invalid; `problem` holds the message.
        """
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

    def _parse(self, text: str, path: Path) -> DeviceConfig:
        config = parse_config(text, path, self._path.parent, self._environment)
        for name, camera in config.cameras.items():
            try:
                parse_source(camera.source)
            except ConfigError as error:
                raise ConfigError(f"{path}: cameras.{name}.source: {error}") from error
        return config if self._state_dir is None else config.model_copy(update={"state_dir": self._state_dir})
