"""Finds the shipped folders and copies them, so that the documents' commands run without a checkout."""

from __future__ import annotations

import shutil
from pathlib import Path

from edge.errors import ConfigError

FOLDERS = ("configs", "demo", "systemd")


def shipped(name: str) -> Path:
    """Return the path of a shipped folder.

    Raises:
        ConfigError: this install lacks it.
    """
    folder = Path(__file__).parent / name
    if not folder.is_dir():
        raise ConfigError(f"{folder}: is missing from this install; install finesight again")
    return folder


def copy_examples(target: Path) -> tuple[int, int]:
    """Copy every shipped folder into a folder, under the names that they have in the checkout.

    Returns:
        how many files were written, and how many were kept because they exist.

    Raises:
        ConfigError: the folder cannot be written.
    """
    written = kept = 0
    for name in FOLDERS:
        source = shipped(name)
        for file in sorted(path for path in source.rglob("*") if path.is_file()):
            copy = target / name / file.relative_to(source)
            if copy.exists():
                kept += 1
                continue
            try:
                copy.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(file, copy)
            except OSError as error:
                raise ConfigError(f"{copy}: cannot be written: {error.strerror}") from error
            written += 1
    return written, kept
