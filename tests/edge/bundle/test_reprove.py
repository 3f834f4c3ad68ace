"""When a running device chooses its engines again, and what it does then."""

from __future__ import annotations

import os

import pytest

from edge.bundle.bundle import read_bundle
from edge.bundle.prove import Proof, ProofOptions
from edge.bundle.reprove import EngineProver, why_again
from edge.errors import BundleError
from edge.inference.engine_choice import EngineChoice, ModelChoice, choice_path, read_choice, write_choice
from tests.fakes_engine import FakeCounts
from tests.store_samples import make_bundle

MACHINE = {"cpu": "x", "engines": "onnxruntime 1"}


def choice(form="fp32", **changes) -> EngineChoice:
    model = ModelChoice(backend="onnxruntime", form=form, since="2026-01-01T00:00:00Z", reason="", tried=[])
    fields = {"bundle_id": "one", "made_at": "2026-01-01T00:00:00Z", "backend": "auto", "machine": MACHINE}
    return EngineChoice(schema=1, models={"embedder tyre": model}, **fields | changes)


@pytest.mark.parametrize(
    ("found", "backend", "machine", "why"),
    [
        (choice(), "auto", MACHINE, None),
        (choice(), "openvino", MACHINE, None),  # every engine was tried
        (None, "auto", MACHINE, "no choice was made on this machine"),
        (choice(backend="openvino"), "auto", MACHINE, "only engine openvino was tried"),
        (choice(), "auto", MACHINE | {"engines": "onnxruntime 2"}, "these changed: engines"),
        (choice(), "auto", MACHINE | {"cpu": "y", "gpu": "z"}, "these changed: cpu, gpu"),
        (choice(pending=["tensorrt"]), "auto", MACHINE, "these were not tried yet: tensorrt"),
    ],
)
def test_choice_is_made_again_when_it_no_longer_fits(found, backend, machine, why):
    assert why_again(found, backend, machine) == why


class Device:
    """A bundle folder and a state folder, and proofs by script."""

    def __init__(self, folder, answer=None) -> None:
        self.bundle, self.state_dir = make_bundle(folder / "one", "one"), folder / "state"
        self.state_dir.mkdir()
        self.path = choice_path(self.state_dir, read_bundle(self.bundle).manifest)
        self.counts, self.proofs, self.answer = FakeCounts(), [], answer or choice()
        self.prover = self.new_prover()

    def new_prover(self, machine=MACHINE):
        return EngineProver(self.state_dir, ProofOptions(), self.counts, self.prove, lambda *_: machine)

    def prove(self, bundle, gallery, options):
        self.proofs.append((bundle, gallery, options.choose, options.build))
        if isinstance(self.answer, Exception):
            raise self.answer
        return Proof([], self.answer)

    def check(self, prover=None):
        prover = prover or self.prover
        prover.check(self.bundle)
        if prover._thread is not None:
            prover._thread.join(60)


@pytest.fixture
def device(tmp_path):
    return Device(tmp_path)


def test_device_without_a_choice_makes_one(device):
    device.check()
    assert device.proofs == [(device.bundle, None, True, True)]
    assert read_choice(device.path) == choice()
    assert device.counts.total == {"engine_choices result=changed": 1}


def test_choice_that_fits_is_not_made_again(device):
    write_choice(device.path, choice())
    device.check()
    assert device.proofs == []
    assert device.counts.total == {}


def test_new_library_version_makes_a_new_choice_and_keeps_the_date(device):
    write_choice(device.path, choice())
    device.answer = choice(machine=MACHINE | {"engines": "onnxruntime 2"}, made_at="2026-02-02T00:00:00Z")
    device.check(device.new_prover(MACHINE | {"engines": "onnxruntime 2"}))
    assert len(device.proofs) == 1
    assert read_choice(device.path).machine["engines"] == "onnxruntime 2"
    assert read_choice(device.path).models["embedder tyre"].since == "2026-01-01T00:00:00Z"
    assert device.counts.total == {"engine_choices result=kept": 1}


def test_failed_proof_is_not_repeated_and_changes_nothing(device, caplog):
    device.answer = BundleError("nothing passed")
    device.check()
    device.check()
    assert len(device.proofs) == 1
    assert not device.path.exists()
    assert device.counts.total == {"engine_choices result=failed": 1}
    assert "nothing passed; what serves stays" in caplog.text


def test_bundle_that_is_repaired_is_looked_at_again(device):
    device.answer = BundleError("nothing passed")
    device.check()
    os.utime(device.bundle, ns=(1, 1))
    device.answer = choice()
    device.check()
    assert len(device.proofs) == 2
    assert device.path.exists()


def test_damaged_choice_is_made_again(device):
    device.path.parent.mkdir()
    device.path.write_bytes(b"\xff\0 rubbish")
    device.check()
    assert read_choice(device.path) == choice()


def test_state_folder_that_cannot_be_written_chooses_nothing(device, monkeypatch):
    monkeypatch.setattr("edge.bundle.reprove.os.access", lambda *_: False)
    device.check()
    assert device.proofs == []


def test_what_the_trial_needs_is_built_first(tmp_path):
    device, order = Device(tmp_path), []
    device.prover = EngineProver(
        device.state_dir,
        ProofOptions(),
        device.counts,
        lambda *_: order.append("proved") or Proof([], choice()),
        lambda *_: MACHINE,
        lambda bundle: order.append(bundle.manifest.bundle_id),
    )
    device.prover.check(device.bundle)
    device.prover._thread.join()
    assert order == ["one", "proved"]
