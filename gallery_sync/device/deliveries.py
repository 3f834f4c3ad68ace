"""Gets one file of a bundle by the way of the fewest bytes: as it is here, by a residual, compressed, or whole.

Rules this module keeps:
1. A way is used only if it is smaller than the file, and a residual only if its base is on this device.
2. A delivery that is missing or gives anything but the file is counted, and the next way is used, if the byte policy
   allows its bytes. A network that fails is an error: the next attempt goes on.
3. The result of a delivery has the name of its hash in the cache, as a download has, so the next attempt finds it.
4. A delivery that does not make its file is not downloaded again at every attempt.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

from edge.durable import file_mismatch
from edge.types import Counts
from gallery_sync.formats.documents import Delivery
from gallery_sync.formats.fields import ObjectRef
from gallery_sync.fresh_files import remove
from gallery_sync.transport.errors import BackOffError, BudgetError, DeliveryError, ReleaseError, TransferError

log = logging.getLogger(__name__)

_MISSING = (404, 410)  # HTTP: nobody has it
Method = Literal["residual", "zstd", "whole"]


class Objects(Protocol):
    """Downloads objects, as gallery_sync.transport.download.Fetcher does."""

    def get_object(self, ref: ObjectRef, name: str, *, urgent: bool = False) -> Path:
        """Return the path of a verified object; no byte budget refuses an urgent one."""
        ...

    def reject(self, ref: ObjectRef, reason: str) -> None:
        """Give up an object that arrived whole and is of no use."""
        ...


Apply = Callable[[Path, Path | None, Path, int, str], object]  # delivery, base, result, its size and hash


@dataclass(frozen=True, slots=True)
class Way:
    """One way to get a file."""

    method: Method
    object: ObjectRef  # to download
    base: Path | None = None  # of a residual


@dataclass(frozen=True, slots=True)
class Tools:
    """What getting a file needs from the world."""

    objects: Objects
    apply: Apply  # makes a file of a delivery: gallery_sync.transport.compressed.apply_delivery
    counts: Counts
    may_fetch_whole: Callable[[int], bool]  # whether the byte policy allows so many bytes after a delivery failed


def is_missing(error: TransferError | BackOffError) -> bool:
    """Return whether a server does not have an object, so that another way to the same is worth its bytes."""
    return isinstance(error, BackOffError) or error.status in _MISSING


def ways(file: ObjectRef, deliveries: Iterable[Delivery], local: Mapping[str, Path], cache: Path) -> list[Way]:
    """Return the ways to get a file, the one with the fewest bytes left to download first, the whole file last.

    Args:
        file: to get.
        deliveries: of the bundle.
        local: the verified files of the device, by hash.
        cache: holds unfinished downloads.
    """
    found = []
    for one in deliveries:
        if one.file != file.sha256 or one.object.size >= file.size:
            continue
        if one.method == "zstd" and one.base is None:
            found.append(Way("zstd", one.object))
        elif one.method == "residual" and one.base is not None and (base := local.get(one.base)):
            found.append(Way("residual", one.object, base))
    return [*sorted(found, key=lambda way: _bytes_left(way.object, cache)), Way("whole", file)]


def _bytes_left(ref: ObjectRef, cache: Path) -> int:
    """Return how many bytes of an object are not in the cache yet."""
    for path in (cache / ref.sha256, cache / f"{ref.sha256}.part"):
        try:
            return max(0, ref.size - path.lstat().st_size)
        except OSError:
            continue
    return ref.size


def get_file(name: str, file: ObjectRef, choices: list[Way], cache: Path, tools: Tools) -> Path:
    """Return the path of a verified file: in the cache.

    Args:
        name: of the file in messages.
        file: to get.
        choices: from `ways`.
        cache: for downloads and results.
        tools: what getting it needs.

    Raises:
        ReleaseError: no way gives the file.
        SyncError: the network failed, or the byte policy does not allow the bytes.
        StorageError: the disk failed.
    """
    result, failure = cache / file.sha256, ""
    if file_mismatch(result, file.size, file.sha256) is None:
        return result
    for way in choices:
        if failure and not tools.may_fetch_whole(way.object.size):
            what = "whole file" if way.method == "whole" else f"{way.method} delivery"
            raise BudgetError(
                f"{name}: {failure}; the byte policy does not allow the {what} of {way.object.size} bytes now; allow "
                "more bytes, or publish another delivery"
            )
        if way.method == "whole":
            path = tools.objects.get_object(file, name)
        elif failed := _deliver(name, file, way, result, tools):
            failure = f"its {way.method} delivery failed: {failed}"
            tools.counts.add("delivery_fallbacks", method=way.method)
            log.warning("%s: %s", name, failure)
            continue
        else:
            path = result
        tools.counts.add("files_fetched", method=way.method)
        return path
    raise ReleaseError(f"{name}: {failure}")


def _deliver(name: str, file: ObjectRef, way: Way, result: Path, tools: Tools) -> str | None:
    """Make a file of a delivery; return why it cannot be made, None if it is.

    Raises:
        SyncError: the network failed.
        StorageError: the disk failed.
    """
    delivery = None
    try:
        delivery = tools.objects.get_object(way.object, f"{name} ({way.method})")
        tools.apply(delivery, way.base, result, file.size, file.sha256)
    except DeliveryError as error:
        tools.objects.reject(way.object, str(error))
        return str(error)
    except ReleaseError as error:
        return str(error)
    except (TransferError, BackOffError) as error:
        if not is_missing(error):
            raise
        return str(error)
    finally:
        if delivery is not None:
            remove(delivery)
    return None
