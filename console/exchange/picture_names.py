"""Which picture of a set a record of a file means.

Rules this module keeps:
1. A record with the hash of its picture means that content, and nothing else, whatever its name is.
2. An upload gives the second of two files of one name the hash of its content as a part of the name. Which of them
   keeps the plain name depends on their order, so the plain name alone means neither of them.
"""

from __future__ import annotations

import json
import sqlite3
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from console.sets.file_names import split_hash
from dataset_formats.exported_names import ExportedNames
from dataset_formats.picture_names import Matches, match_names, name_key


@dataclass(frozen=True, slots=True)
class Known:
    """A picture of the set."""

    name: str  # below the folder of its set
    sha256: str
    sent_as: str = ""  # what the file was called before an upload made a safe name of it; empty: the same


class SetNames:
    """The pictures of a set, to be found by what a file says of them."""

    def __init__(self, known: Sequence[Known], contents: Mapping[str, str] = {}) -> None:
        """Take the pictures of the set, and the hashes in the file, by the names of its records."""
        self._contents = contents
        self._sha256 = {one.name: one.sha256 for one in known}
        self._names = ExportedNames(self._sha256)
        self._by_hash: dict[str, list[str]] = defaultdict(list)
        self._sent: dict[str, list[str]] = defaultdict(list)
        self._alike: dict[str, list[str]] = defaultdict(list)  # pictures of one name, by its key
        for one in known:
            self._by_hash[one.sha256].append(one.name)
            if one.sent_as not in ("", one.name):
                self._sent[one.sent_as].append(one.name)
            self._alike[name_key(self.plain(one.name))].append(one.name)
        self._sent_names = ExportedNames(self._sent)

    def match(self, name: str) -> list[str]:
        """Return the pictures that a record may mean; one is a match."""
        found = self._by_name(name)
        if not (sha256 := self._contents.get(name)):
            return found
        same = self._by_hash.get(sha256, [])
        both = [one for one in same if one in found]
        return both if len(both) == 1 else list(same)

    def _by_name(self, name: str) -> list[str]:
        found = self._names.match(name)
        if not found:
            return self._with_hash_of(name) or [
                one for sent in self._sent_names.match(name) for one in self._sent[sent]
            ]  # fmt: skip
        if len(found) > 1 or self.plain(found[0]) != found[0]:
            return found
        others = [one for one in self._alike[name_key(found[0])] if self.plain(one) != one]
        sent = self._sent.get(name, []) if others and name not in self._sha256 else []
        return sent if len(sent) == 1 else [*found, *others]

    def plain(self, name: str) -> str:
        """Return the name of a picture without the hash that an upload put into it."""
        plain, digits = split_hash(name)
        return plain if self._sha256[name].startswith(digits) else name

    def _with_hash_of(self, name: str) -> list[str]:
        """Return the pictures of the content whose hash is a part of a name."""
        plain, digits = split_hash(name)
        alike = self._alike.get(name_key(plain), []) if digits else []
        return [one for one in alike if self._sha256[one].startswith(digits)]


def known_pictures(rows: sqlite3.Connection, set_id: int) -> list[Known]:
    """Return the pictures of a set."""
    found = rows.execute("SELECT name, sha256, source FROM pictures WHERE set_id = ?", (set_id,))
    return [Known(row["name"], row["sha256"], str(json.loads(row["source"]).get("file", ""))) for row in found]


def find_pictures(names: Iterable[str], known: Sequence[Known], contents: Mapping[str, str]) -> Matches:
    """Match records to pictures of a set, each picture to one record at most.

    Args:
        names: of the records.
        known: the pictures.
        contents: hashes in the file, by name of the record.
    """
    index = SetNames(known, contents)
    matches = match_names(names, index)
    problems = dict(matches.problems)
    for name in problems:
        found = index.match(name)
        if name in contents and not found:
            problems[name] = (
                "no picture of this set has the content that was annotated, whatever its name; annotate the one that "
                "is here, or, if it is the same picture, remove its sha256 from the file"
            )
        elif name not in contents and len(found) > 1 and len({index.plain(one) for one in found}) == 1:
            problems[name] = (
                f"{len(found)} pictures were uploaded under this name ({', '.join(found[:3])}), and the file does not "
                "say which; draw its boxes here, or upload one of them again under another name"
            )
    return Matches(matches.found, problems)
