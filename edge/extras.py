"""The extras of the install: what a configuration asks for must be there."""

from __future__ import annotations

import importlib.util

from edge.errors import ConfigError

_PACKAGES = {"kiosk": ("starlette", "uvicorn")}


def need_extra(extra: str) -> None:
    """Make sure that an extra is installed.

    Raises:
        ConfigError: one of its packages is not.
    """
    for package in _PACKAGES[extra]:
        if importlib.util.find_spec(package) is None:
            raise ConfigError(f"{extra}: found no package {package!r}, expected it installed (extra {extra!r})")
