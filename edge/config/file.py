"""The file that a device is configured by, read again while it runs, and the copy of it that last ran well."""

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

GOOD = "config.good.yaml"  # in state_dir; as the file was, its ${variables} not filled in


class ConfigFile:
    """One YAML file; `problem` says why it cannot be used, None while it can."""

    def __init__(self, path: Path, environment: Mapping[str, str]) -> None:
        """Nothing is read before `load`."""
        self.problem: str | None = None
        self.safe_mode = False  # whether the device was started from the copy
        self._path, self._environment = path, environment
        self._text: str | None = None  # not yet kept

    def load(self) -> DeviceConfig:
        """Read the file.

        Raises:
            ConfigError: it is bad; remembered in `problem`.
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
        """Read the file or, when it is bad, the copy that last ran well.

        Raises:
            ConfigError: both are bad, or there is no copy.
        """
        try:
            return self.load()
        except ConfigError as error:
            good = state_dir / GOOD
            try:
                config = self._parse(read_text(good), good)
            except ConfigError as worse:
                raise ConfigError(f"{error}\nno safe mode: {worse}") from error
            self.safe_mode = True
            log.error("%s; safe mode: running by %s", error, good)  # noqa: TRY400  the message says it all
            return config

    def keep(self, state_dir: Path) -> None:
        """Remember durably that what was loaded last runs well.

        Raises:
            OSError: the disk refused.
        """
        if self._text is not None:
            write_durably(state_dir / GOOD, self._text.encode(), mode=0o600)  # a password may stand in it
            self._text = None

    def _parse(self, text: str, named: Path) -> DeviceConfig:
        config = parse_config(text, named, self._path.parent, self._environment)
        for name, camera in config.cameras.items():
            try:
                parse_source(camera.source)
            except ConfigError as error:
                raise ConfigError(f"{named}: cameras.{name}.source: {error}") from error
        return config
