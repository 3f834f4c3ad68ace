from __future__ import annotations

from edge.telemetry.health_report import resident_bytes


def test_resident_memory_is_read(tmp_path):
    assert resident_bytes() > 1_000_000
    assert resident_bytes(tmp_path / "missing") is None
