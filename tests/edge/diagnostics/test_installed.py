"""What `edge bundle list` says of a state folder, also a damaged one."""

from __future__ import annotations

from edge.bundle import slots
from edge.bundle.active_pointer import ReleaseName
from edge.bundle.install import install_bundle, install_gallery
from edge.diagnostics.installed import describe_bundles, format_bundles
from tests.store_samples import make_bundle, make_gallery, trusted


def test_damaged_pointers_are_named_beside_what_can_be_read(tmp_path):
    state_dir = tmp_path / "state"
    slot = install_bundle(make_bundle(tmp_path / "one", "one"), state_dir)
    slots.activate(state_dir, slot, install_gallery(make_gallery(tmp_path / "items"), state_dir), prove=trusted)
    assert describe_bundles(state_dir)["problems"] == []
    for name in ("current", "current.copy", "staged"):
        (state_dir / name).write_text("{")
    problems = describe_bundles(state_dir)["problems"]
    assert [problem.split(": ")[1] for problem in problems] == ["damaged pointer file; repair it"] * 2
    lines = list(format_bundles(state_dir))
    assert problems[0] in lines
    assert any(line.startswith("a") and "one" in line for line in lines)


def test_release_and_trial_are_shown(tmp_path):
    state_dir = tmp_path / "state"
    for number, name in enumerate(("one", "two"), start=1):
        slot = install_bundle(make_bundle(tmp_path / name, name, number), state_dir)
        generation = install_gallery(make_gallery(tmp_path / f"items-{number}", 2 + number), state_dir)
        release = ReleaseName(line="shop", sequence=number) if number == 2 else None
        slots.stage(state_dir, slot, generation, release)
        slots.activate(state_dir, prove=trusted, trial="t-2" if number == 2 else None)
    states = [line.rsplit("  ", 1)[1] for line in format_bundles(state_dir)]
    assert states == ["state", "previous", "active, release 2 of shop, on trial"]
