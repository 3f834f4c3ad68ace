"""Tests of galleries flush nothing, which takes most of the time."""

from __future__ import annotations

import os

import pytest


@pytest.fixture(autouse=True)
def unflushed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Flush nothing to the disk."""
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)
