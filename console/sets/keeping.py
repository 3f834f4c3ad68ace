"""Makes, looks through and deletes sets with their files: what pages and the command line ask for in one step."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from console.background.tasks import Progress, Task, Tasks
from console.sets.file_store import FileStore
from console.sets.images import forget_images
from console.sets.inbox import InboxReader
from console.sets.listings import FolderListing, Listed, list_folder, permitted_folder
from console.sets.looking import Looker
from console.sets.pictures import Picture, forget_picture, note_problem
from console.sets.sets import Kind, Names, PictureSet, Shows, counted, create_set, find_set, forget_set
from console.sets.taught import TAUGHT, list_taught
from console.settings import Settings
from console.storage.database import Database
from edge.errors import ConsoleError

_LOOK_AGAIN_S = 60.0  # on opening a page; of many pictures later
_PICTURES_AGAIN_PER_S = 100


@dataclass(frozen=True, slots=True)
class NewSet:
    """What somebody wants a new set to be."""

    name: str
    kind: Kind
    shows: Shows
    names: Names = "expect"
    category: str | None = None
    folder: str = ""  # where kind is folder
    model: str = ""


class SetKeeper:
    """The sets of a console, with their files."""

    def __init__(self, settings: Settings, database: Database, tasks: Tasks, clock: Callable[[], float]) -> None:
        self._settings, self._database, self._tasks, self._clock = settings, database, tasks, clock
        self.store = FileStore(settings, database)

    def make(self, by: str, new: NewSet) -> int:
        """Make a set, begin to read its folder where it has one, and return its id.

        Raises:
            ConsoleError: the name is taken, or the folder may not be used; says what to do.
        """
        folder, shows = self._folder(new), new.shows
        if new.kind in ("inbox", "taught"):
            shows = "objects"
        with self._database.write() as connection:
            set_id = create_set(
                connection, self._clock(), by, new.name, new.kind, folder, new.category, new.model, shows=shows,
                names=new.names,
            )  # fmt: skip
        if new.kind != "uploads":
            self.look(set_id)
        return set_id

    def look(self, set_id: int, *, again: bool = False) -> Task:
        """Start to look for new, changed and vanished pictures.

        Args:
            set_id: of the set.
            again: also read files that could not be used, and those that somebody removed from the set.

        Raises:
            ConsoleError: there is no such set.
        """
        with self._database.read() as rows:
            picture_set = find_set(rows, set_id)
        if again:
            with self._database.write() as connection:
                connection.execute("DELETE FROM picture_problems WHERE set_id = ? AND picture_id IS NULL", (set_id,))
                connection.execute("DELETE FROM inbox_files WHERE set_id = ?", (set_id,))
        return self._tasks.start(
            look_key(set_id), f"Looking through {picture_set.name}", lambda progress: self._look(set_id, progress)
        )

    def look_on_opening(self, picture_set: PictureSet) -> None:
        """Look for new pictures, unless somebody did so just now, or the last look failed or was stopped."""
        if not picture_set.grows:
            return
        task = self._tasks.find(look_key(picture_set.id))
        if task is not None and task.state in ("running", "failed", "stopped"):
            return
        with self._database.read() as rows:
            pause_s = _LOOK_AGAIN_S + sum(counted(rows, picture_set.id, "boxes").values()) / _PICTURES_AGAIN_PER_S
        if picture_set.looked_at is None or self._clock() - picture_set.looked_at > pause_s:
            self.look(picture_set.id)

    def delete(self, by: str, set_id: int) -> PictureSet:
        """Delete a set: its rows, its decisions, and its files where they are uploads.

        Raises:
            ConsoleError: there is no such set, or it is being read.
        """
        key = look_key(set_id)
        self._tasks.stop(key)
        self._tasks.wait(key, 10.0)
        with self._database.write() as connection:
            query = "SELECT DISTINCT sha256 FROM pictures WHERE set_id = ?"
            hashes = {row["sha256"] for row in connection.execute(query, (set_id,))}
            gone = forget_set(connection, self._clock(), by, set_id)
        self.store.delete_folder(gone.folder)
        self._forget_images(hashes)
        return gone

    def delete_picture(self, by: str, picture_id: int) -> Picture:
        """Delete a picture of a set with its decisions; its file, too, where it is an upload.

        Raises:
            ConsoleError: there is no such picture, or its file cannot be deleted.
        """
        with self._database.write() as connection:
            gone = forget_picture(connection, self._clock(), by, picture_id)
            picture_set = find_set(connection, gone.set_id)
            if not self.store.owns(picture_set.folder):
                says = f"removed from this set by {by}; the file is where it was"
                note_problem(connection, self._clock(), gone.set_id, gone.name, says)
        self.store.delete_picture(picture_set.folder, gone.name)
        self._forget_images({gone.sha256})
        return gone

    def _forget_images(self, hashes: set[str]) -> None:
        """Delete the thumbnails of pictures that no set has any more."""
        with self._database.read() as rows:
            kept = {row["sha256"] for row in rows.execute("SELECT DISTINCT sha256 FROM pictures")}
        forget_images(self._settings, hashes - kept)

    def _folder(self, new: NewSet) -> Path:
        """Return where the pictures of a new set lie."""
        if new.kind == "folder":
            return permitted_folder(self._settings.folders, new.folder)
        if new.kind == "taught":
            if self._settings.device is None:
                raise ConsoleError("missing", "no device is on this machine; start the console with --device STATE_DIR")
            return self._settings.device / TAUGHT
        if new.kind == "inbox" and self._settings.inbox is None:
            raise ConsoleError("missing", "there is no inbox; start the console with --inbox DIR")
        if new.kind == "evaluation":
            raise ConsoleError("invalid", "kind: sets of an evaluation are made by the evaluation; see Training")
        return self.store.new_folder()

    def _look(self, set_id: int, progress: Progress) -> str:
        with self._database.read() as rows:
            picture_set = find_set(rows, set_id)
        if picture_set.kind == "inbox":
            if self._settings.inbox is None:
                raise ConsoleError("missing", "there is no inbox any more; start the console with --inbox DIR")
            reader = InboxReader(self._database, self.store, self._clock)
            return reader.look(self._settings.inbox, picture_set, progress).sentence()
        progress(0, 0)
        listing = self._list(picture_set)
        return Looker(self._database, picture_set, self._clock).look(listing, progress).sentence()

    def _list(self, picture_set: PictureSet) -> FolderListing:
        if picture_set.kind == "folder":
            folder = permitted_folder(self._settings.folders, str(picture_set.folder))
            return list_folder(folder, self._settings.folders, picture_set.names, picture_set.category)
        if picture_set.kind == "taught":
            return list_taught(picture_set.folder, picture_set.category)
        with self._database.read() as rows:  # nothing new comes here: look whether all is as it was
            query = "SELECT name FROM pictures WHERE set_id = ?"
            names = [row["name"] for row in rows.execute(query, (picture_set.id,))]
        return FolderListing({name: Listed(name) for name in names})


def look_key(set_id: int) -> str:
    """Return the key of the task that looks through a set."""
    return f"sets/{set_id}/look"
