"""The engines that are chosen for a device's bundle: how to prove them, which are wanted, which are distrusted."""

from __future__ import annotations

import logging
from pathlib import Path

from edge.bundle.bundle import Bundle, read_bundle
from edge.bundle.layout import identity
from edge.bundle.prove import ProofOptions
from edge.config.schema import DeviceConfig, EngineConfig
from edge.errors import FinesightError
from edge.inference.engine_choice import (
    FOLDER,
    choice_path,
    distrust,
    models_of,
    precision_of,
    read_choice,
    resolve,
    write_choice,
)

log = logging.getLogger(__name__)


def proof_options(engine: EngineConfig, state_dir: Path) -> ProofOptions:
    """Return how to prove a bundle for a device."""
    cache = state_dir / "cache"
    return ProofOptions(engine.backend, engine.threads, engine.precision, cache, tensorrt=engine.tensorrt)


class WantedEngines:
    """Says which engine and form each model of a bundle should run with; cheap enough to call every second."""

    def __init__(self, config: DeviceConfig) -> None:
        self._config = config
        self._read: tuple[object, object] | None = None  # identities of what was read, and the answer

    def __call__(self, bundle: Path) -> object:
        """Return something that changes with the engines that are chosen for a bundle folder; None if it is damaged."""
        files = (bundle, identity(bundle), identity(self._config.state_dir / FOLDER))
        if self._read is None or self._read[0] != files:
            self._read = files, self._answer(bundle)
        return self._read[1]

    def _answer(self, bundle: Path) -> dict[str, tuple[str, str]] | None:
        engine = self._config.engine
        try:
            manifest = read_bundle(bundle, verify=False).manifest
            choice = read_choice(choice_path(self._config.state_dir, manifest))
            first = {}
            for name, model in models_of(manifest).items():
                precision = precision_of(model, engine.backend, engine.precision)
                first[name] = resolve(name, model, engine.backend, precision, choice)[0]
        except FinesightError as error:  # the load reports it, too
            log.debug("%s", error)
            return None
        return {name: (one.backend, one.form) for name, one in first.items()}


def distrust_engines(state_dir: Path, bundle: Bundle, starts: int) -> None:
    """Use only ONNX Runtime from now on: a native library that crashes would end every start."""
    path = choice_path(state_dir, bundle.manifest)
    choice = read_choice(path)
    ships = {name: model.ship for name, model in models_of(bundle.manifest).items()}
    changed = choice and distrust(choice, ships, f"the device ended the last {starts} starts within a minute with it")
    if not changed:
        return
    log.error("the last %d starts ended within a minute; only ONNX Runtime is used from now on", starts)
    try:
        write_choice(path, changed)
    except OSError as error:
        log.warning("%s: cannot write the engine choice: %s", path, error.strerror or error)
