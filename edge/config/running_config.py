"""The configuration that a device runs, and the file from which it can be read again while it runs."""

from __future__ import annotations

import logging

from edge.config.config_file import ConfigFile
from edge.config.reload import ReloadPlan, plan_reload
from edge.config.schema import DeviceConfig
from edge.errors import CommandError, ConfigError
from edge.telemetry.counters import Counters

log = logging.getLogger(__name__)


class RunningConfig:
    """The configuration that runs.

    Args:
        config: with which the device starts.
        file: where it comes from; None: it cannot be read again.
        counters: count what becomes of the file.
    """

    def __init__(self, config: DeviceConfig, file: ConfigFile | None, counters: Counters) -> None:
        self.config = config
        self.overlay = file.overlay if file else None  # in the configuration that runs
        self._file, self._counters = file, counters

    @property
    def safe_mode(self) -> bool:
        """Whether the last good configuration runs instead of an invalid one."""
        return self._file is not None and self._file.safe_mode

    @property
    def problem(self) -> str | None:
        """Why the file is invalid; None: it is not."""
        return self._file.problem if self._file else None

    @property
    def overlay_problem(self) -> str | None:
        """Why the overlay is ignored; None: it is not."""
        return self._file.overlay_problem if self._file else None

    def overlay_changed(self) -> bool:
        """Return whether there is another overlay than the one that was read."""
        return self._file is not None and self._file.overlay_changed()

    def plan_reload(self) -> ReloadPlan:
        """Read the file again, and return what would change; `use` changes it.

        Raises:
            CommandError: there is no file.
            ConfigError: it is invalid; the running configuration stays.
        """
        if self._file is None:
            raise CommandError("this device runs without a configuration file; there is nothing to reload")
        try:
            wanted = self._file.load()
        except ConfigError as error:
            self._counters.add("reloads", result="refused")
            log.error("%s; the running configuration stays", error)  # noqa: TRY400  the message says it all
            raise
        return plan_reload(self.config, wanted)

    def use(self, plan: ReloadPlan) -> None:
        """Take the configuration of a plan as the one that runs."""
        self.config = plan.config
        self.overlay = self._file.overlay if self._file else None

    def keep(self) -> None:
        """Save the running configuration, for a start in safe mode when the file is invalid; count its overlay."""
        if self._file is None:
            return
        try:
            self._file.save_last_good(self.config.state_dir)
        except OSError as error:
            self._counters.add("configurations_not_kept")
            log.warning("%s: cannot keep the configuration for safe mode: %s", self.config.state_dir, error.strerror)
        if self._file.overlay_problem is not None:
            self._counters.add("config_overlays", result="refused")
        elif self.overlay is not None:
            self._counters.add("config_overlays", result="used")
