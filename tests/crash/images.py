"""What a folder may look like after a power cut: a model of a disk that keeps what was flushed, and orders little.

Rules of the model:
1. The content of a file is safe once the file is flushed. Before that, of the changes since the last flush, any may be
   lost: all, one, those after some point, or a half of the last one; or the size arrives without the bytes.
2. A name is safe once its folder is flushed. Before that, names may be lost: all after some point, or all of one
   folder. A rename is whole or did not happen; a renamed file may be empty.
3. Everything that was there before the operation is safe.
"""

from __future__ import annotations

import hashlib
import itertools
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from tests.crash.record import Step

_MOST_PREFIXES = 12  # of names that were not flushed
_MOST_SINGLE = 8  # files or changes of which each is lost alone
_SECTOR = 512


@dataclass(eq=False)
class File:
    """A file: what is safe, and the changes since."""

    safe: bytes = b""
    changes: list[tuple[int, bytes | None]] = field(default_factory=list)  # offset and bytes; size and None

    def content(self, changes: list[tuple[int, bytes | None]] | None = None) -> bytes:
        """Return the content after some of the changes; None: all."""
        data = bytearray(self.safe)
        for at, written in self.changes if changes is None else changes:
            end = at if written is None else at + len(written)
            if len(data) < end:
                data.extend(bytes(end - len(data)))
            if written is None:
                del data[at:]
            else:
                data[at:end] = written
        return bytes(data)

    def variants(self) -> Iterator[tuple[str, bytes]]:
        """Yield what a file that was not flushed may hold, by name."""
        whole = self.content()
        yield "kept", whole
        yield "lost", self.safe
        at, last = self.changes[-1]
        if last:
            half = max(1, (len(last) // 2) // _SECTOR * _SECTOR) if len(last) > 1 else 0
            yield "torn", self.content([*self.changes[:-1], (at, last[:half])])
        if len(whole) > len(self.safe):
            yield "zeros", self.safe + bytes(len(whole) - len(self.safe))
        for number in range(1, min(len(self.changes), _MOST_SINGLE)):
            yield f"first {number}", self.content(self.changes[:number])
            yield f"without {number}", self.content(self.changes[: number - 1] + self.changes[number:])


@dataclass(eq=False)
class Folder:
    """A folder: the names that are safe, and those that a process sees."""

    safe: dict[str, Node] = field(default_factory=dict)
    live: dict[str, Node] = field(default_factory=dict)


Node = File | Folder


@dataclass(frozen=True)
class _Rename:
    """A change of names that was not flushed: removals and additions, all or none."""

    removed: tuple[tuple[Folder, str], ...]
    added: tuple[tuple[Folder, str, Node], ...]

    @property
    def folders(self) -> set[int]:
        return {id(one[0]) for one in (*self.removed, *self.added)}

    def apply(self, names: dict[int, dict[str, Node]]) -> None:
        for folder, name in self.removed:
            names.setdefault(id(folder), dict(folder.safe)).pop(name, None)
        for folder, name, node in self.added:
            names.setdefault(id(folder), dict(folder.safe))[name] = node


class Disk:
    """The model of a folder on a disk."""

    def __init__(self, folder: Path, ignored: tuple[str, ...] = ()) -> None:
        """Read what is there, which is safe.

        Args:
            folder: as it is before the operation.
            ignored: names of files whose content does not matter, such as locks.
        """
        self._inodes: dict[int, Node] = {}
        self._pending: list[_Rename] = []
        self._ignored = ignored
        self._top = self._read(folder)

    def _read(self, path: Path) -> Node:
        node: Node
        if path.is_dir():
            found = {one.name: self._read(one) for one in sorted(path.iterdir())}
            node = Folder(dict(found), dict(found))
        else:
            node = File(path.read_bytes())
        self._inodes[path.stat().st_ino] = node
        return node

    def apply(self, step: Step) -> None:
        """Do what a process did."""
        if step.kind in ("write", "truncate"):
            file = self._inodes[step.inode]
            assert isinstance(file, File)
            file.changes.append((step.number, step.data if step.kind == "write" else None))
        elif step.kind == "fsync":
            self._flush(self._inodes[step.inode])
        elif step.kind in ("create", "mkdir"):
            node: Node = File() if step.kind == "create" else Folder()
            self._inodes[step.inode] = node
            self._change((), ((*self._place(step.path), node),))
        elif step.kind in ("unlink", "rmdir"):
            self._change((self._place(step.path),), ())
        else:
            folder, name = self._place(step.path)
            removed = ((folder, name),) if step.kind == "rename" else ()
            self._change(removed, ((*self._place(step.to), folder.live[name]),))

    def _place(self, path: str) -> tuple[Folder, str]:
        *folders, name = path.split("/")
        folder = self._top
        for one in folders:
            assert isinstance(folder, Folder)
            folder = folder.live[one]
        assert isinstance(folder, Folder)
        return folder, name

    def _change(self, removed: tuple[tuple[Folder, str], ...], added: tuple[tuple[Folder, str, Node], ...]) -> None:
        for folder, name in removed:
            del folder.live[name]
        for folder, name, node in added:
            folder.live[name] = node
        self._pending.append(_Rename(removed, added))

    def _flush(self, node: Node) -> None:
        if isinstance(node, File):
            node.safe, node.changes = node.content(), []
            return
        for change in [one for one in self._pending if id(node) in one.folders]:
            for folder, name in change.removed:
                folder.safe.pop(name, None)
            for folder, name, added in change.added:
                folder.safe[name] = added
            self._pending.remove(change)

    def images(self) -> Iterator[dict[str, bytes | None]]:
        """Yield what the folder may hold if the power is cut now: content by path, None for a folder."""
        for names in self._names():
            tree = dict(self._walk(self._top, "", names))
            dirty = [
                (path, node)
                for path, node in tree.items()
                if isinstance(node, File) and node.changes and path.rsplit("/", 1)[-1] not in self._ignored
            ]
            for contents in _contents([node for _, node in dirty]):
                chosen = {path: contents[id(node)] for path, node in dirty}
                yield {
                    path: None if isinstance(node, Folder) else chosen.get(path, node.content())
                    for path, node in tree.items()
                }

    def _names(self) -> Iterator[dict[int, dict[str, Node]]]:
        count = len(self._pending)
        ends = set(range(count + 1))
        if count > _MOST_PREFIXES:
            ends = {0, 1, 2, count // 4, count // 2, 3 * count // 4, count - 3, count - 2, count - 1, count}
        kept = [self._pending[:end] for end in sorted(ends, reverse=True)]
        folders = sorted(
            {one for change in self._pending for one in change.folders}, key=list(self._folder_order()).index
        )
        if len(folders) > 1:
            kept += [[one for one in self._pending if folder not in one.folders] for folder in folders]
        for changes in kept:
            names: dict[int, dict[str, Node]] = {}
            for change in changes:
                change.apply(names)
            yield names

    def _folder_order(self) -> Iterator[int]:
        for change in self._pending:
            for one in (*change.removed, *change.added):
                yield id(one[0])

    def _walk(self, node: Node, path: str, names: dict[int, dict[str, Node]]) -> Iterator[tuple[str, Node]]:
        assert isinstance(node, Folder)
        for name, below in sorted(names.get(id(node), node.safe).items()):
            where = f"{path}{name}"
            yield where, below
            if isinstance(below, Folder):
                yield from self._walk(below, f"{where}/", names)


def _contents(dirty: list[File]) -> Iterator[dict[int, bytes]]:
    """Yield the contents that files that were not flushed may have together, by identity."""
    variants = {id(file): dict(file.variants()) for file in dirty}
    if not variants:
        yield {}
        return
    names = dict.fromkeys(itertools.chain.from_iterable(variants.values()))
    for name in names:
        yield {file: found.get(name, found["kept"]) for file, found in variants.items()}
    if 1 < len(variants) <= _MOST_SINGLE:
        for alone in variants:
            yield {file: found["lost" if file == alone else "kept"] for file, found in variants.items()}


def crash_images(disk: Disk, steps: list[Step]) -> Iterator[dict[str, bytes | None]]:
    """Yield every image that a power cut during the steps may leave, each once.

    Args:
        disk: as it was before the operation.
        steps: that the operation recorded.
    """
    seen: set[bytes] = set()
    for step in [None, *steps]:
        if step is not None:
            disk.apply(step)
        for image in disk.images():
            digest = hashlib.sha256()
            for path, content in image.items():
                digest.update(f"{path}\0{-1 if content is None else len(content)}\0".encode())
                digest.update(content or b"")
            if digest.digest() not in seen:
                seen.add(digest.digest())
                yield image


def write_image(image: dict[str, bytes | None], folder: Path) -> None:
    """Make a folder of an image."""
    folder.mkdir(parents=True)
    for path, content in image.items():
        if content is None:
            (folder / path).mkdir()
        else:
            descriptor = os.open(folder / path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            with os.fdopen(descriptor, "wb") as file:
                file.write(content)
