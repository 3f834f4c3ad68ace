"""Recover from every image that an operation may leave."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

from tests.crash.images import Disk, crash_images, write_image
from tests.crash.record import record

LOCKS = ("change.lock", "sync.lock", "agent.lock")  # their content does not matter
Recover = Callable[[Path], None]


def check_all(shim: Path, folder: Path, operation: str, recover: Recover) -> int:
    """Make every image that an operation may leave, recover from each; return how many there are.

    Args:
        shim: the compiled recorder.
        folder: that the operation changes; its neighbours are also those of each image.
        operation: a function of `tests.crash.operations`, called with the folder.
        recover: fails where an image is unhealthy.
    """
    disk, work = Disk(folder, LOCKS), folder.parent
    call = f"from tests.crash import operations; operations.{operation}(FOLDER)"
    steps = record(shim, folder, work / "log", call)
    image_folder = work / "crashed" / folder.name
    image_folder.parent.mkdir()
    for neighbour in work.iterdir():
        if neighbour not in (folder, image_folder.parent):
            (image_folder.parent / neighbour.name).symlink_to(neighbour)
    unhealthy: list[str] = []
    count = 0
    for count, image in enumerate(crash_images(disk, steps), start=1):
        write_image(image, image_folder)
        try:
            recover(image_folder)
        except Exception as error:
            unhealthy.append(f"image {count}: {type(error).__name__}: {error}"[:400])
        shutil.rmtree(image_folder)
    print(f"{operation}: {len(steps)} steps, {count} images, {len(unhealthy)} unhealthy")
    assert not unhealthy, f"{len(unhealthy)} of {count} images are unhealthy: {unhealthy[:5]}"
    return count
