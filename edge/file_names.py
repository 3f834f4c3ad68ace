"""File names for the names that people give: any text in any script names a category or an item.

Rules this module keeps:
1. A name of letters, digits, `.`, `_` and `-` that does not start with `.` is its own file name, up to 80 characters.
2. Every other name becomes a slug, `~` and a hash of the exact text. No name of the first kind has a `~`, so the two
   kinds never meet.
3. The result depends on the name alone. Only names that a file system may take for one, because they differ in upper
   and lower case alone, need `distinct_file_names`.
"""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable

_PLAIN = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]{0,79}")
_SLUG_CHARACTERS, _HASH_CHARACTERS = 40, 10


def file_name(name: str) -> str:
    """Return the file name, without a suffix, that stands for a name.

    >>> file_name("cola-0.5")
    'cola-0.5'
    >>> file_name("AM General")
    'am-general~fa29e617c0'
    """
    return name if _PLAIN.fullmatch(name) else hashed_file_name(name)


def distinct_file_names(names: Iterable[str]) -> dict[str, str]:
    """Return a file name for each name, distinct even where upper and lower case are one.

    Of names that differ in case alone, only one in lower case keeps its own file name.
    """
    unique = set(names)
    alike = Counter(name.casefold() for name in unique)
    return {
        name: file_name(name) if alike[name.casefold()] == 1 or name == name.lower() else hashed_file_name(name)
        for name in unique
    }


def hashed_file_name(name: str) -> str:
    """Return a slug and a hash, which no other name has."""
    ascii_text = unicodedata.normalize("NFKD", name).encode("ascii", "ignore").decode().lower()
    slug = re.sub(r"[^a-z0-9]+", "-", ascii_text)[:_SLUG_CHARACTERS].strip("-")
    digest = hashlib.sha256(name.encode("utf-8", "surrogatepass")).hexdigest()[:_HASH_CHARACTERS]
    return f"{slug or 'x'}~{digest}"
