"""The device that the arguments of a verb name: its configuration and its state folder."""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import TYPE_CHECKING

from edge.options import STATE_DIR

if TYPE_CHECKING:
    from edge.config.schema import DeviceConfig


def config_of(arguments: argparse.Namespace) -> DeviceConfig:
    """Read the configuration; --state-dir overrides its state folder.

    Raises:
        ConfigError: it is missing or invalid.
    """
    from edge.config.config_file import ConfigFile

    return ConfigFile(arguments.config, os.environ, getattr(arguments, "state_dir", None)).load()


def state_dir_of(arguments: argparse.Namespace) -> Path:
    """Return the state folder that the arguments name, or that of the configuration, or the default.

    Raises:
        ConfigError: the configuration is missing or invalid.
    """
    if arguments.config is None:
        return arguments.state_dir or STATE_DIR
    return config_of(arguments).state_dir


def device_of(arguments: argparse.Namespace) -> DeviceConfig:
    """Return the configuration of the device whose state folder is named, or the defaults for it.

    Raises:
        ConfigError: it is missing or invalid.
    """
    from edge.config.schema import DeviceConfig

    if arguments.config is not None:
        return config_of(arguments)
    return DeviceConfig().model_copy(update={"state_dir": state_dir_of(arguments)})
