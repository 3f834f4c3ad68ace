"""The commands about the pair that serves, on real slots and pointers."""

from __future__ import annotations

from dataclasses import replace

import pytest

from edge.bundle import slots
from edge.bundle.active_pointer import ReleaseName, read_active_pointer
from edge.bundle.install import install_bundle, install_gallery
from edge.errors import BundleError
from gallery_sync.formats.reports import Request
from gallery_sync.remote_hands.pair_commands import activate, prove, rollback, sync, why_not_activate
from tests.gallery_sync.remote_hands.samples import NOW, context_of
from tests.store_samples import make_bundle, make_gallery

REQUEST = Request(id="c-1", by="ada", at=NOW)


def install(state_dir, folder, number):
    """Stage release n."""
    make_bundle(folder / f"bundle-{number}", f"bundle-{number}", number)
    make_gallery(folder / f"gallery-{number}", 2 + number)
    generation = install_gallery(folder / f"gallery-{number}", state_dir)
    slot = install_bundle(folder / f"bundle-{number}", state_dir)
    name = ReleaseName(line="shop", sequence=number, gallery_sequence=number)
    return slots.stage(state_dir, slot, generation, name)


@pytest.fixture
def device(tmp_path):
    """Release 1 serves, release 2 is staged."""
    state_dir = tmp_path / "state"
    install(state_dir, tmp_path, 1)
    slots.activate(state_dir, prove=lambda *_: [])
    install(state_dir, tmp_path, 2)
    return state_dir


def serving(state_dir):
    return read_active_pointer(state_dir).release.sequence


def test_sync_rings(device):
    rung = []
    assert sync(REQUEST, replace(context_of(device), ring=lambda: rung.append(1))).state == "done"
    assert rung == [1]


def test_activate_proves_what_is_staged_and_then_switches(device):
    proved = []
    context = replace(context_of(device), prove_new=lambda bundle, gallery: proved.append((bundle.name, gallery.name)))
    first = activate(REQUEST, context)
    assert len(proved) == 1
    assert serving(device) == 1
    outcome = first.then()
    assert (outcome.state, outcome.result["serving"]["release"], serving(device)) == ("done", 2, 2)


def test_activate_of_a_pair_that_fails_its_proof_changes_nothing(device):
    def fails(*_):
        raise BundleError("probe 3: found item a, expected b")

    with pytest.raises(BundleError, match="probe 3"):
        activate(REQUEST, replace(context_of(device), prove_new=fails))
    assert serving(device) == 1


def test_activate_of_another_pair_than_was_proved_is_refused(device, tmp_path):
    first = activate(REQUEST, context_of(device))
    install(device, tmp_path, 3)
    assert first.then().state == "failed"
    assert serving(device) == 1


def test_activate_with_nothing_staged_is_refused(device):
    assert why_not_activate(context_of(device)) is None
    activate(REQUEST, context_of(device)).then()
    assert activate(REQUEST, context_of(device)).state == "refused"
    assert why_not_activate(context_of(device)).startswith("nothing is staged")


def test_rollback_holds_the_release_that_it_leaves(device):
    activate(REQUEST, context_of(device)).then()
    held = []
    outcome = rollback(REQUEST, replace(context_of(device), hold=lambda *one: held.append(one)))
    assert (outcome.state, serving(device)) == ("done", 1)
    assert held == [("shop", 2, "rolled back by ada")]
    assert "release 2 is held" in outcome.text


def test_rollback_with_nothing_before_is_an_error(device):
    with pytest.raises(BundleError, match="no previous bundle"):
        rollback(REQUEST, context_of(device))


def test_prove_tells_its_probes(device):
    context = replace(context_of(device), prove=lambda *_: ["probe 1: item a", "probe 2: item b"])
    outcome = prove(REQUEST, context)
    assert (outcome.state, outcome.result["probes"]) == ("done", 2)
    assert outcome.text.startswith("release 1, bundle bundle-1")


def test_prove_without_a_pair_is_refused(tmp_path):
    assert prove(REQUEST, context_of(tmp_path)).state == "refused"
