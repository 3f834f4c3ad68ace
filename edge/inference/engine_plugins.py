"""Engines that other installed packages offer, by the entry point group `finesight.engines`.

Rules this module keeps:
1. Only packages that are installed in this environment count: a bundle or a configuration brings no code.
2. A plug-in is loaded when it is named, or when it was chosen on this machine; its name alone loads nothing.
3. No plug-in takes the name of a built-in engine, and of two with one name the first by package counts.
4. Whatever a plug-in raises is an EngineError.

docs/how-to/engine-plugins.md has an example.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Collection, Sequence
from importlib import metadata
from pathlib import Path
from typing import Protocol, cast

import numpy as np
from numpy.typing import NDArray

from edge.errors import EngineError
from edge.types import Engine

log = logging.getLogger(__name__)

GROUP = "finesight.engines"
_NAME = re.compile(r"[a-z][a-z0-9-]{1,39}")
_BUILT_IN = ("auto", "onnxruntime", "openvino", "tensorrt")
_MOST_FORMS = 16


class EnginePlugin(Protocol):
    """What an entry point of the group names: a module, or any other object, with these three."""

    forms: Sequence[str]  # of a model that it runs, best first: keys of `files` in a manifest

    def is_usable(self) -> str | None:
        """Return why it cannot run on this machine; None if it can."""
        ...

    def open(self, path: Path, threads: int, max_batch: int, cache: Path) -> Engine:
        """Load the file of a form.

        Args:
            path: the file, inside its bundle folder.
            threads: CPU threads that it may use.
            max_batch: rows of the largest batch.
            cache: folder for what it builds on this machine.
        """
        ...


def _entry_points() -> dict[str, metadata.EntryPoint]:
    found: dict[str, metadata.EntryPoint] = {}
    for point in sorted(metadata.entry_points(group=GROUP), key=lambda one: one.dist.name if one.dist else ""):
        if not _NAME.fullmatch(point.name) or point.name.startswith(_BUILT_IN):
            log.warning("engine plug-in %r is ignored: its name must be its own, in lower case", point.name[:80])
        elif point.name in found:
            log.warning("engine plug-in %r is ignored: two packages offer it", point.name)
        else:
            found[point.name] = point
    return found


def plugin_names() -> list[str]:
    """Return the names of the installed plug-ins, without loading them."""
    return list(_entry_points())


def plugin_versions() -> dict[str, str]:
    """Return the package and version that offers each plug-in, by its name."""
    points = _entry_points()
    return {name: f"{point.dist.name} {point.dist.version}" for name, point in points.items() if point.dist}


def load_plugin(name: str) -> EnginePlugin:
    """Load a plug-in.

    Raises:
        EngineError: no installed package offers it, or it cannot be loaded.
    """
    point = _entry_points().get(name)
    if point is None:
        raise EngineError(f"engine {name}: no installed package offers it")
    try:
        return _Checked(name, cast("EnginePlugin", point.load()))
    except EngineError:
        raise
    except Exception as error:
        raise EngineError(f"engine {name}: its package cannot be loaded: {_line(error)}") from error


class _Checked:
    """A plug-in whose answers are checked and whose errors are ours."""

    def __init__(self, name: str, plugin: EnginePlugin) -> None:
        self._name, self._plugin = name, plugin
        forms = list(plugin.forms)[:_MOST_FORMS]
        if not forms or not all(isinstance(form, str) for form in forms):
            raise EngineError(f"engine {name}: its plug-in names no forms; it needs a list of texts `forms`")
        self.forms: Sequence[str] = tuple(forms)

    def is_usable(self) -> str | None:
        """Return why it cannot run on this machine."""
        try:
            answer = self._plugin.is_usable()
        except Exception as error:  # noqa: BLE001  its code is not ours
            return _line(error)
        return None if answer is None else str(answer)[:300]

    def open(self, path: Path, threads: int, max_batch: int, cache: Path) -> Engine:
        """Load the file of a form.

        Raises:
            EngineError: the plug-in cannot.
        """
        try:
            return _CheckedEngine(self._name, path, self._plugin.open(path, threads, max_batch, cache))
        except EngineError:
            raise
        except Exception as error:
            raise EngineError(f"{path}: engine {self._name}: {_line(error)}") from error


class _CheckedEngine:
    """An engine of a plug-in: its errors become EngineErrors, and what it lacks is added."""

    def __init__(self, name: str, path: Path, engine: Engine) -> None:
        self._name, self._engine = name, engine
        self.where = str(path)
        self.library = f"{name}: {plugin_versions().get(name, 'unknown')}, {getattr(engine, 'library', '')}"
        self.inputs: Sequence[Collection[str]] = [tuple(names) for names in engine.inputs]
        self.outputs: Sequence[Collection[str]] = [tuple(names) for names in engine.outputs]

    def run(self, batch: NDArray[np.generic]) -> list[NDArray[np.generic]]:
        """Run the model on one batch.

        Raises:
            EngineError: the plug-in failed.
        """
        try:
            return list(self._engine.run(batch))
        except Exception as error:
            raise EngineError(f"{self.where}: engine {self._name}: {_line(error)}") from error


def _line(error: Exception) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())[:300]
