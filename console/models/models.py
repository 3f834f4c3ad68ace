"""The bundles and galleries that the console can recognise with, loaded when they are first used.

Rules this module keeps:
1. At most two pairs are loaded. One whose files changed is loaded again when it is next used; whoever uses the old one
   goes on with it.
2. The models run as on a device: by the modules of edge.
3. A pair that cannot be loaded is one clear error; the other choices work.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from console.models.choices import (
    DEMO,
    DEVICE,
    REPOSITORY,
    RUN,
    Choice,
    demo_choice,
    device_choice,
    run_choice,
    run_choices,
)
from console.models.looks import Look, look_at
from console.models.published import PublishedPairs
from console.settings import Settings
from edge.build import load_models
from edge.bundle.bundle import MANIFEST_NAME
from edge.bundle.layout import identity
from edge.config.schema import EngineConfig
from edge.errors import ConsoleError, FinesightError
from edge.gallery.generation import INDEX_NAME, Gallery, read_gallery
from edge.gallery.store import read_thumbnail, store_path
from edge.recognition.loaded_models import LoadedModels
from edge.types import Image

__all__ = ["Choice", "LoadedPair", "Look", "Models"]

log = logging.getLogger(__name__)

_MOST_LOADED = 2
_NOTHING = "there is no bundle to recognise with; start with --device or --repo, or train one"
_Result = TypeVar("_Result")


@dataclass(frozen=True, slots=True)
class LoadedPair:
    """A choice whose models are loaded. Any thread may use it."""

    choice: Choice
    models: LoadedModels
    gallery: Gallery | None
    files: object  # what changes when the files are replaced

    @property
    def general_category(self) -> str:
        """The category with most items among those that have an embedder."""
        embedders = self.models.stages.embedders
        entries = self.gallery.categories if self.gallery else {}
        counts = {name: entries[name].items if name in entries else -1 for name in embedders}
        return max(counts, key=lambda name: counts[name])


class Models:
    """Bundles and galleries; any thread may use them."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        repo = settings.repository
        self._published = None if repo is None else PublishedPairs(repo, settings.data / "models")
        self._problem = ""  # of the repository, when it was last read
        self._lock = threading.Lock()
        self._loading = threading.Lock()  # one load at a time
        self._loaded: dict[str, LoadedPair] = {}  # by choice; the last one was used last

    def choices(self) -> list[Choice]:
        """Return what can be chosen, the default first: device, repository, the newest run, the demo."""
        return list(self._listed())

    def choice(self, choice_id: str = "") -> Choice:
        """Return a choice; "": the default one. The folders of a published pair are made first, if need be.

        Raises:
            ConsoleError: there is none, or none of this id.
            FinesightError: the repository is damaged.
        """
        found = self._named(choice_id) if choice_id else next(self._listed(), None)
        if found is None and choice_id and next(self._listed(), None) is not None:
            raise ConsoleError("not_found", "there is no such bundle any more; choose another one")
        if found is None:
            raise ConsoleError("missing", _NOTHING)
        if found.id == REPOSITORY and self._published is not None:
            pair = self._published.make()
            return _choice_of(pair.release, pair.bundle_id, pair.bundle, pair.gallery)
        return found

    def load(self, choice_id: str = "") -> LoadedPair:
        """Return a loaded pair. The first time this takes seconds.

        Raises:
            ConsoleError: there is no such choice, or it cannot be loaded.
        """
        choice = self.choice(choice_id)
        if (pair := self._find(choice)) is not None:
            return pair
        with self._loading:
            if (pair := self._find(choice)) is None:
                pair = _load(choice)
                self._keep(pair)
            return pair

    def look(self, image_rgb: Image, choice_id: str = "", category: str | None = None) -> Look:
        """Look at a picture that one object fills; see `looks.look_at`.

        Raises:
            ConsoleError: there is no such choice, or it cannot be loaded.
            EngineError: a model failed.
        """
        return self.run(choice_id, lambda pair: look_at(pair.models, image_rgb, category, pair.general_category))

    def thumbnail(self, choice_id: str, category: str, item: str) -> bytes | None:
        """Return the picture of an item, JPEG or PNG; None if the gallery has none."""
        try:
            gallery = self.choice(choice_id).gallery
            return None if gallery is None else read_thumbnail(store_path(gallery, category), item)
        except (FinesightError, ValueError, OSError):  # of a name that no file can have
            return None

    def run(self, choice_id: str, act: Callable[[LoadedPair], _Result]) -> _Result:
        """Use a loaded pair; if that fails and its files were replaced meanwhile, use the new ones.

        Raises:
            FinesightError: as `load`, and what `act` raises.
        """
        pair = self.load(choice_id)
        try:
            return act(pair)
        except FinesightError:
            if _files(pair.choice) == pair.files and self.choice(choice_id) == pair.choice:
                raise
            log.info("%s was replaced; the new one is used", pair.choice.name)
            return act(self.load(choice_id))

    def _listed(self) -> Iterator[Choice]:
        """Yield the choices; what nobody asks for is not looked for."""
        if (device := device_choice(self._settings)) is not None:
            yield device
        if (published := self._of_repository()) is not None:
            yield published
        yield from run_choices(self._settings)
        if (demo := demo_choice(self._settings)) is not None:
            yield demo

    def _named(self, choice_id: str) -> Choice | None:
        if choice_id.startswith(RUN):
            return run_choice(self._settings, choice_id)
        if choice_id == REPOSITORY:
            return self._of_repository()
        found = {DEVICE: device_choice, DEMO: demo_choice}.get(choice_id)
        return None if found is None else found(self._settings)

    def _of_repository(self) -> Choice | None:
        if self._published is None:
            return None
        try:
            pair = self._published.newest()
        except FinesightError as error:
            if str(error) != self._problem:  # not for each page
                self._problem = str(error)
                log.warning("the repository cannot be read: %s", error)
            return None
        return None if pair is None else _choice_of(pair.release, pair.bundle_id, pair.bundle, pair.gallery)

    def _find(self, choice: Choice) -> LoadedPair | None:
        files = _files(choice)
        with self._lock:
            pair = self._loaded.get(choice.id)
            if pair is None or (pair.choice, pair.files) != (choice, files):
                return None
            self._loaded[choice.id] = self._loaded.pop(choice.id)
            return pair

    def _keep(self, pair: LoadedPair) -> None:
        with self._lock:
            self._loaded.pop(pair.choice.id, None)
            self._loaded[pair.choice.id] = pair
            for oldest in list(self._loaded)[:-_MOST_LOADED]:
                del self._loaded[oldest]


def _choice_of(release: int, bundle_id: str, bundle: Path, gallery: Path) -> Choice:
    return Choice(REPOSITORY, f"Published release {release}: {bundle_id}", bundle, gallery)


def _load(choice: Choice) -> LoadedPair:
    files = _files(choice)
    try:
        # never builds an engine into a bundle's folder
        models = load_models(choice.bundle, choice.gallery, EngineConfig(backend="onnxruntime"))
        gallery = None if choice.gallery is None else read_gallery(choice.gallery, verify=False)
    except (FinesightError, OSError) as error:
        raise ConsoleError("missing", f"{choice.name} cannot be loaded: {error}; choose another one") from error
    if not models.stages.embedders:
        raise ConsoleError("missing", f"{choice.name} has no embedder; choose another one")
    return LoadedPair(choice, models, gallery, files)


def _files(choice: Choice) -> object:
    """Return what changes when the files of a pair are replaced."""
    indexes = [choice.bundle / MANIFEST_NAME, *([choice.gallery / INDEX_NAME] if choice.gallery else [])]
    return tuple(identity(one) for one in indexes)
