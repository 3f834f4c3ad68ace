"""Asks a web server for the files of a repository, as devices do: what is published may not be what is served."""

from __future__ import annotations

import hashlib
from collections.abc import Callable

from edge.errors import SyncError
from gallery_sync.formats.fields import ObjectRef
from gallery_sync.transport.repository_files import open_transport


def reader(url: str) -> Callable[[str, ObjectRef], str | None]:
    """Return what fetches one file and says what is wrong with the answer, None if nothing is.

    Raises:
        SyncError: the address is wrong.
    """
    transport = open_transport(url)

    def reached(path: str, ref: ObjectRef) -> str | None:
        digest, size = hashlib.sha256(), 0
        try:
            with transport.get(path, 0) as body:
                for chunk in body.chunks:
                    size += len(chunk)
                    digest.update(chunk)
                    if size > ref.size:
                        break
        except (SyncError, OSError) as error:
            return str(error)
        if (size, digest.hexdigest()) != (ref.size, ref.sha256):
            return f"{url}/{path}: differs from the file here; upload it again, or clear the cache of the server"
        return None

    return reached
