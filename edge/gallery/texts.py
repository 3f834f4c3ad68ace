"""Many texts in one buffer: the ids and labels of a large gallery without a Python object for each."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import overload

import numpy as np
from numpy.typing import NDArray


class Texts(Sequence[str]):
    """A fixed sequence of texts, held as UTF-8: 8 bytes and its own length for each.

    >>> Texts.of(["a", "bc"])[1]
    'bc'
    """

    __slots__ = ("data", "ends")

    def __init__(self, data: bytes, ends: NDArray[np.int64]) -> None:
        """Hold a buffer.

        Args:
            data: the texts one after the other, in UTF-8.
            ends: (n,), where each text ends in it.
        """
        self.data, self.ends = data, ends

    @classmethod
    def of(cls, texts: Iterable[str]) -> Texts:
        """Hold these texts.

        Raises:
            UnicodeEncodeError: one holds half of a surrogate pair.
        """
        encoded = [text.encode() for text in texts]
        return cls(b"".join(encoded), np.cumsum(np.fromiter(map(len, encoded), np.int64, len(encoded))))

    @classmethod
    def joined(cls, parts: Iterable[Texts]) -> Texts:
        """Hold the texts of several sequences, one after the other."""
        kept = list(parts)
        starts = np.cumsum([0, *(len(part.data) for part in kept)])
        ends = [part.ends + start for part, start in zip(kept, starts.tolist(), strict=False)]
        return cls(b"".join(part.data for part in kept), np.concatenate([np.zeros(0, np.int64), *ends]))

    def __len__(self) -> int:
        return len(self.ends)

    @overload
    def __getitem__(self, place: int) -> str: ...
    @overload
    def __getitem__(self, place: slice) -> list[str]: ...
    def __getitem__(self, place: int | slice) -> str | list[str]:
        if isinstance(place, slice):
            start, stop, step = place.indices(len(self))
            if step != 1:
                return [self[one] for one in range(start, stop, step)]
            ends = self.ends[start:stop].tolist()
            starts = [int(self.ends[start - 1]) if start else 0, *ends]
            return [self.data[first:end].decode() for first, end in zip(starts, ends, strict=False)]
        place = range(len(self))[place]
        return self.data[int(self.ends[place - 1]) if place else 0 : int(self.ends[place])].decode()

    def __iter__(self) -> Iterator[str]:
        start = 0
        for begin in range(0, len(self), _BLOCK):
            for end in self.ends[begin : begin + _BLOCK].tolist():
                yield self.data[start:end].decode()
                start = end


_BLOCK = 4096  # texts to read in one go
