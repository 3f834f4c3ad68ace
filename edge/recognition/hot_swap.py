"""The active bundle and gallery, and the swap to those that are activated while the device runs.

Rules:
1. A newly activated bundle and gallery are loaded in a thread of their own; the frame loop swaps between two frames.
2. If loading fails, what serves stays. It is tried again only after the pair that the pointer names, its folders or the
   engines chosen for it changed: an activation, a repair, or a trial of the engines.
3. An overlay (the items taught at a kiosk) is added to whatever is loaded, and can be refreshed from any thread.
4. What both galleries hold is loaded once. The lists of a large gallery are built before it is swapped in; at a start,
   while it serves.
5. A pointer that names what serves already loads nothing; only the name of the release and its trial are taken over.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from edge.bundle.active_pointer import ActivePointer, read_active_pointer
from edge.bundle.bundle import Bundle
from edge.bundle.layout import ACTIVE, ACTIVE_COPY, gallery_folder, identity, slot_folder
from edge.bundle.pairs import Pair, open_pair
from edge.errors import BundleError, FinesightError
from edge.gallery.generation import Gallery
from edge.gallery.loaded_gallery import LoadedGallery
from edge.process import hand_over_often
from edge.recognition.best_pair import Load, Serving, name_of
from edge.recognition.loaded_models import LoadedModels
from edge.types import Counts

log = logging.getLogger(__name__)

_NICE = 10  # for work that nothing waits for
Reload = Callable[[Bundle, Gallery, LoadedGallery], LoadedModels]  # takes over what it can of the last
AddOverlay = Callable[[LoadedModels], LoadedModels]
EnginesOf = Callable[[Path], object]  # bundle folder -> what changes with the engines that are chosen for it


class ActiveModels:
    """Holds the models that serve; the pipeline takes them over between two frames."""

    def __init__(
        self,
        state_dir: Path,
        load_best: Callable[[], Serving],
        load: Reload,
        add_overlay: AddOverlay,
        counts: Counts,
        engines_of: EnginesOf = lambda _: None,
    ) -> None:
        """Load the best pair of the device.

        Args:
            state_dir: holds the pointer `current`.
            load_best: loads the active pair or, if it cannot be used, another one.
            load: loads a pair that is activated later, beside the gallery that serves.
            add_overlay: changes loaded models before they are used: a kiosk adds its taught items.
            counts: `activations` by result, `fallbacks`, `dress_failed`, `gallery_items`, `gallery_lists_failed`.
            engines_of: says which engines are chosen for a bundle.

        Raises:
            FinesightError: no pair can be used.
        """
        self._add_overlay, self._counts = add_overlay, counts
        self._lock = threading.Lock()  # of `serving`
        # before the load: it remembers what is named
        self._reloader = ModelReloader(state_dir, self._load_beside, add_overlay, counts, engines_of)
        self._reload = load
        contents = self._reloader.contents_named()
        found = load_best()
        self._content = contents.get(found.pair)  # that serves; None: not named when the load began
        self.serving = replace(found, models=add_overlay(found.models))
        _start_building_lists(found.models.gallery, counts)
        if found.fallback:
            counts.add("fallbacks")

    @property
    def models(self) -> LoadedModels:
        """The loaded bundle and gallery."""
        return self.serving.models

    def swap_if_ready(self) -> bool:
        """Swap in newly activated models once they are loaded, or a new name of what serves; return whether it did.

        Only the frame loop calls it, several times a second.
        """
        loaded = self._reloader.poll(self._content)
        if loaded is None:
            return self._take_name()
        try:
            # again: the overlay may have changed during a long load
            loaded = replace(loaded, models=self._add_overlay(loaded.models))
        except FinesightError as error:
            self._counts.add("dress_failed")
            log.warning("%s; using the new bundle and gallery as they were loaded", error)
        with self._lock:
            self.serving = loaded
        self._content = self._reloader.seen
        log.info("now using %s", loaded.pair)
        return True

    def _take_name(self) -> bool:
        """Take over the release and trial that the pointer gives to the pair that serves; return whether it changed."""
        pointer, serving = self._reloader.pointer, self.serving
        if pointer is None or self._content is None:
            return False
        if serving.pair not in [Pair.of(one) for one in (pointer, pointer.previous) if one is not None]:
            return False  # it is what it was until the next pair is loaded
        fallback = serving.fallback
        if self._reloader.seen == self._content:  # what serves is what is active
            fallback = None
        release, trial = name_of(serving.pair, pointer)
        if (release, trial, fallback) == (serving.release, serving.trial, serving.fallback):
            return False
        with self._lock:
            self.serving = replace(self.serving, release=release, trial=trial, fallback=fallback)
        log.info("%s serves as %s", serving.pair, f"release {release.sequence}" if release else "installed by hand")
        return True

    def _load_beside(self, bundle: Bundle, gallery: Gallery) -> LoadedModels:
        models = self._reload(bundle, gallery, self.models.gallery)
        _start_building_lists(models.gallery, self._counts).join()
        for update in models.gallery.updates.values():
            for change, items in asdict(update).items():
                self._counts.add("gallery_items", items, change=change)
        return models

    def refresh_overlay(self) -> None:
        """Add the current overlay to the active models, from the next frame on; call it from any thread."""
        while True:
            before = self.serving
            refreshed = replace(before, models=self._add_overlay(before.models))
            with self._lock:
                if self.serving is before:  # else other models were swapped in meanwhile
                    self.serving = refreshed
                    return


def _start_building_lists(gallery: LoadedGallery, counts: Counts) -> threading.Thread:
    """Build the lists of large categories in a thread that lets the frame path go first; a search needs none."""
    thread = threading.Thread(target=_build_lists, args=(gallery, counts), name="gallery-lists", daemon=True)
    thread.start()
    return thread


def _build_lists(gallery: LoadedGallery, counts: Counts) -> None:
    if not gallery.needs_lists:
        return
    with suppress(OSError):
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), _NICE)  # of a thread, on Linux
    started = time.monotonic()
    try:
        gallery.build_lists()
    except Exception:
        counts.add("gallery_lists_failed")
        log.exception("cannot build the lists of a large gallery; each search reads all of it")
    else:
        log.info("a large gallery has its lists or graph after %.1f s", time.monotonic() - started)


@dataclass(frozen=True, slots=True)
class Content:
    """What there is to load for a pair, and the identity of its folders: a repair replaces a folder."""

    pair: Pair
    folders: tuple[tuple[int, int] | None, ...]  # inode and time of change in ns; None: missing
    engines: object  # that are chosen for the bundle


class ModelReloader:
    """Watches the pointer of a device's state folder and loads what it newly names."""

    def __init__(
        self,
        state_dir: Path,
        load: Load,
        add_overlay: AddOverlay,
        counts: Counts,
        engines_of: EnginesOf = lambda _: None,
    ) -> None:
        """Start watching; what is named now is not loaded.

        Args:
            state_dir: holds the pointer `current`.
            load: loads a verified pair; runs in a thread of its own.
            add_overlay: changes the loaded models, in that thread.
            counts: `activations` by result.
            engines_of: says which engines are chosen for a bundle.
        """
        self._state_dir = state_dir
        self._engines_of = engines_of
        self._load, self._add_overlay = load, add_overlay
        self._counts = counts
        self._pointer_error = ""  # the newest that was logged
        self._files: tuple[object, ...] = ()  # identity of the pointer files that were read
        self.pointer: ActivePointer | None = None  # as read last; None: there is none, or it is damaged
        self.seen = self._named()
        self._loaded: Serving | None = None
        self._thread: threading.Thread | None = None

    def contents_named(self) -> dict[Pair, Content]:
        """Return what the pointer names now: the active pair and the one before it."""
        pointers = (self.pointer, self.pointer and self.pointer.previous)
        return {Pair.of(one): self._content_of(one) for one in pointers if one is not None}

    def poll(self, serving: Content | None = None) -> Serving | None:
        """Return newly loaded models, without waiting; None while there are none.

        Args:
            serving: what serves, which need not be loaded.
        """
        if self._thread is not None and self._thread.is_alive():
            return None
        loaded, self._loaded, self._thread = self._loaded, None, None
        named = self._named()
        if loaded is not None and named == self.seen:
            self._counts.add("activations", result="serving")
            release, trial = name_of(loaded.pair, self.pointer)
            return replace(loaded, release=release, trial=trial)
        if named is not None and named != self.seen:
            self.seen = named
            if named != serving:
                log.info("%s was activated or repaired, or got other engines; loading it", named.pair)
                self._thread = threading.Thread(
                    target=self._try_load, args=(named.pair,), name="model-reloader", daemon=True
                )
                self._thread.start()
        return None

    def _named(self) -> Content | None:
        pointer = self._read_pointer()
        return None if pointer is None else self._content_of(pointer)

    def _content_of(self, pointer: ActivePointer) -> Content:
        folders = (slot_folder(self._state_dir, pointer.slot), gallery_folder(self._state_dir, pointer.gallery))
        return Content(Pair.of(pointer), tuple(map(identity, folders)), self._engines_of(folders[0]))

    def _read_pointer(self) -> ActivePointer | None:
        """Read the pointer if its files changed."""
        files = tuple(identity(self._state_dir / name) for name in (ACTIVE, ACTIVE_COPY))
        if files != self._files:
            self._files, self.pointer = files, None
            try:
                self.pointer = read_active_pointer(self._state_dir)
            except BundleError as error:
                self._files = ()  # the disk may answer the next time
                if str(error) != self._pointer_error:
                    self._pointer_error = str(error)
                    log.error("%s; what serves stays", error)  # noqa: TRY400  the message says it all
        return self.pointer

    def _try_load(self, pair: Pair) -> None:
        try:
            with hand_over_often():
                bundle, gallery, damaged = open_pair(self._state_dir, pair)
                self._loaded = Serving(pair, self._add_overlay(self._load(bundle, gallery)), None, tuple(damaged))
        except Exception as error:
            self._counts.add("activations", result="refused")
            # a FinesightError says which file and why; any other error needs its traceback
            is_ours = isinstance(error, FinesightError)
            log.error("%s; what serves stays", error, exc_info=not is_ours)  # noqa: TRY400
