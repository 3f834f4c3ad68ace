"""Which signed releases a device takes, and which it refuses, before anything large is fetched."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field
from typing import Any

import pytest

import edge
from edge.errors import SyncError
from edge.manifest.manifest import parse_manifest
from gallery_sync.device.wanted import Known, RefusedError, read_wanted, runs_with
from gallery_sync.formats.fields import ObjectRef
from gallery_sync.transport.errors import ReleaseError
from tests.store_samples import HEADS, SPACE, compatible_with

OTHER = "b" * 64
REF = {"sha256": "c" * 64, "size": 10}


@dataclass(frozen=True)
class Signed:
    data: bytes

    @property
    def sha256(self) -> str:
        return hashlib.sha256(self.data).hexdigest()


@dataclass
class FakeRepository:
    """Signed documents and objects in memory; a change is signed again."""

    documents: dict[str, Any] = field(default_factory=dict)  # by path
    manifest: dict[str, Any] = field(default_factory=dict)
    wrong_head: bool = False

    def target(self, path: str, limit_bytes: int) -> Signed | None:
        document = self.documents.get(path)
        if document is None:
            return None
        if path.startswith("models/"):
            document = document | {"manifest": self._manifest_ref() | document.get("manifest", {})}
        elif path.startswith("rollout/"):
            head = self.target(f"models/demo/{document['bundle_id']}.json", limit_bytes)
            document = {"bundle_head": head.sha256 if head and not self.wrong_head else "d" * 64} | document
        data = json.dumps(document).encode()
        assert len(data) <= limit_bytes
        return Signed(data)

    def _manifest_ref(self) -> dict[str, Any]:
        data = json.dumps(self.manifest).encode()
        return {"sha256": hashlib.sha256(data).hexdigest(), "size": len(data)}

    def get_document(self, ref: ObjectRef, _name: str) -> bytes:
        data = json.dumps(self.manifest).encode()
        assert hashlib.sha256(data).hexdigest() == ref.sha256
        return data


def base(sequence: int, **other: Any) -> dict[str, Any]:
    return {"sequence": sequence, "object": REF, "live_root": "0" * 64, "items": 3, "vectors": 6} | other


def segment(after: int, sequence: int, **other: Any) -> dict[str, Any]:
    counts = {"object": REF, "live_root": "1" * 64, "upserts": 1, "deletes": 0}
    return {"after": after, "sequence": sequence} | counts | other


def space(space_id: str = SPACE, **other: Any) -> dict[str, Any]:
    heads = [head.model_dump() for head in HEADS]
    return {"space_id": space_id, "heads": heads, "bases": [base(1)], "segments": []} | other


@pytest.fixture
def repository() -> FakeRepository:
    """Release 5 of bundle `two` (sequence 2) with gallery 3."""
    embedder = {
        "files": {"ort-u8": "tyre.onnx"},
        "input_name": "image",
        "output_names": ["vector"],
        "preprocess": {"width": 96, "height": 96},
        "categories": ["tyre"],
        "heads": [head.model_dump() for head in HEADS],
        "space_id": SPACE,
    }
    manifest = {
        "schema": 1,
        "bundle_id": "two",
        "sequence": 2,
        "created_at": "2026-01-01T00:00:00Z",
        "runtimes": ["ort-u8"],
        "files": [{"path": "tyre.onnx", "size": 100, "sha256": "e" * 64}],
        "embedders": [embedder],
    }
    parse_manifest(json.dumps(manifest), "sample")
    release = {
        "schema": 2,
        "line": "demo",
        "sequence": 5,
        "created_at": "2026-01-01T00:00:00Z",
        "bundle_id": "two",
        "gallery_sequence": 3,
    }
    head = {"schema": 2, "line": "demo", "bundle_id": "two", "sequence": 2}
    log = {"schema": 2, "line": "demo", "category": "tyre", "sequence": 3, "spaces": [space()]}
    documents = {
        "rollout/demo.json": release,
        "models/demo/two.json": head,
        "gallery/demo/tyre.json": log,
    }
    return FakeRepository(documents, manifest)


def read(repository: FakeRepository, **known: Any):
    return read_wanted(repository, repository, Known("demo", **known))


def test_release_is_read_with_its_bundle_and_its_galleries(repository):
    wanted = read(repository, sequence=5, security_floor=2)
    assert (wanted.release.sequence, wanted.manifest.bundle_id, wanted.release.gallery_sequence) == (5, "two", 3)
    assert list(wanted.spaces()) == ["tyre"]


RELEASES = {
    "another line": ("line", {"line": "other"}, "found a release of line 'other', expected 'demo'"),
    "F8 an older release": ("older", {"sequence": 4}, "release 4 is older than release 5, which this device had"),
    "T6 a number far above": ("ahead", {"sequence": 2_000_000}, "more than 1000000 above release 5"),
    "T3 a bundle nobody signed": ("mixed", {"bundle_id": "three"}, "found no signed head of bundle three"),
    "T3 another hash of the head": ("mixed", {"bundle_head": "f" * 64}, "of bundle two, expected ffff"),
}


@pytest.mark.parametrize("kind", RELEASES)
def test_release_is_refused(repository, kind):
    reason, change, message = RELEASES[kind]
    repository.documents["rollout/demo.json"].update(change)
    with pytest.raises(RefusedError, match=message) as caught:
        read(repository, sequence=5)
    assert caught.value.reason == reason


def test_t3_head_of_another_release_is_refused(repository):
    repository.wrong_head = True
    with pytest.raises(RefusedError, match="expected dddd"):
        read(repository)


HEAD_CHANGES = {
    "of another line": ("mixed", {"line": "other"}, "found the head of bundle two of line 'other'"),
    "of another bundle": ("mixed", {"bundle_id": "one"}, "found the head of bundle one"),
    "of another sequence": ("mixed", {"sequence": 7}, "found the manifest of two, sequence 2"),
    "of a newer package": (
        "needs",
        {"needs": "99.1"},
        rf"runs finesight {edge.__version__}; .*99\.1; update the package",
    ),
    "of no version": ("needs", {"needs": "soon\n"}, "update the package"),
    "of a newer gallery": ("gallery", {"gallery_from": 4}, "needs gallery 4 or newer, and the release has 3"),
}


@pytest.mark.parametrize("kind", HEAD_CHANGES)
def test_head_is_refused(repository, kind):
    reason, change, message = HEAD_CHANGES[kind]
    repository.documents["models/demo/two.json"].update(change)
    with pytest.raises(RefusedError, match=message) as caught:
        read(repository)
    assert caught.value.reason == reason
    assert "\n" not in str(caught.value)


def test_bundle_below_the_security_floor_is_refused(repository):
    with pytest.raises(RefusedError, match="bundle two has sequence 2, and this device runs none below 3") as caught:
        read(repository, security_floor=3)
    assert caught.value.reason == "security_floor"


def test_bundle_for_other_engines_alone_is_refused(repository):
    repository.manifest["runtimes"] = ["npu-9"]
    with pytest.raises(RefusedError, match="no form of its models runs with finesight"):
        read(repository)


def test_manifest_of_5_mib_is_refused_before_it_is_fetched(repository):
    repository.documents["models/demo/two.json"]["manifest"] = {"size": 5 << 20}
    with pytest.raises(ReleaseError, match="found 5242880 bytes, expected at most 4194304"):
        read(repository)


def test_files_of_more_than_8_gib_are_refused(repository):
    files = [{"path": f"{n}.bin", "size": 5 << 30, "sha256": f"{n:064x}"} for n in range(2)]
    repository.manifest["files"] += files
    with pytest.raises(ReleaseError, match="expected at most 8589934592"):
        read(repository)


@pytest.mark.parametrize(
    ("version", "needs", "runs"),
    [
        ("0.9.0", "0.9", True),
        ("0.10.0", "0.9.9", True),
        ("1.0", "0.99", True),
        ("0.9.0rc1", "0.9.0", True),
        ("0.8.9", "0.9", False),
        ("0.9.0", "0.9.1", False),
        ("0.9.0", "1", False),
        ("0.9.0", "", False),
        ("0.9.0", "0.9; rm -rf", False),
        ("0.9.0", "9" * 30, False),
    ],
)
def test_needed_version(version, needs, runs):
    assert runs_with(version, needs) == runs


LOGS = {
    "G1 of another line": ({"line": "other"}, "mixed|line 'other'"),
    "G2 of another category": ({"category": "wheel"}, "found the log of category 'wheel'"),
    "G3 with a space twice": ({"spaces": [space(), space()]}, "twice"),
    "G4 with bases out of order": ({"spaces": [space(bases=[base(2), base(1)])]}, "not in order"),
    "G4 with segments out of order": (
        {"spaces": [space(segments=[segment(2, 3), segment(1, 2)])]},
        "not in order",
    ),
    "G4 with a state twice": ({"spaces": [space(segments=[segment(1, 2), segment(1, 2)])]}, "not in order"),
    "G5 with a state after its sequence": ({"spaces": [space(segments=[segment(1, 9)])]}, "newer than the log's 3"),
    "G6 with a segment that goes back": (
        {"spaces": [space(segments=[segment(3, 2)])]},
        "expected one that goes forward",
    ),
    "G7 of 2^53 as sequence": ({"sequence": 2**53}, "not a valid gallery log"),
    "G7 of a negative size": (
        {"spaces": [space(bases=[base(1, object={"sha256": "c" * 64, "size": -1})])]},
        "not a valid gallery log",
    ),
    "G8 in another space of one dimension": ({"spaces": [space(OTHER)]}, "expected aaaa.*one length"),
    "G8 of another dimension": (
        {"spaces": [space(heads=[{"name": "class", "dim": 99}])]},
        "found vectors of 99 numbers, expected 12",
    ),
    "G9 without bases": ({"spaces": [space(bases=[])]}, "not a valid gallery log"),
    "G9 with 5,000 segments": (
        {"sequence": 6000, "spaces": [space(segments=[segment(n, n + 1) for n in range(1, 5001)])]},
        "not a valid gallery log",
    ),
}


@pytest.mark.parametrize("kind", LOGS)
def test_hostile_gallery_log_is_one_error(repository, kind):
    change, message = LOGS[kind]
    repository.documents["gallery/demo/tyre.json"].update(change)
    with pytest.raises(SyncError, match=message) as caught:
        read(repository)
    assert str(caught.value).isprintable()


def test_category_without_a_log_has_no_gallery(repository):
    del repository.documents["gallery/demo/tyre.json"]
    assert read(repository).spaces() == {}


def test_category_that_is_newer_than_the_release_has_no_gallery(repository):
    repository.documents["gallery/demo/tyre.json"]["spaces"] = [space(bases=[base(4)])]
    repository.documents["gallery/demo/tyre.json"]["sequence"] = 4
    assert read(repository).spaces() == {}


def test_compatible_space_is_taken_where_the_own_one_is_missing(repository):
    repository.manifest["embedders"][0]["compatible"] = [compatible_with(OTHER)]
    repository.documents["gallery/demo/tyre.json"]["spaces"] = [space(OTHER)]
    assert read(repository).spaces()["tyre"].space_id == OTHER
    repository.documents["gallery/demo/tyre.json"]["spaces"] = [space(OTHER), space(SPACE)]
    assert read(repository).spaces()["tyre"].space_id == SPACE


def test_big_change_is_allowed_up_to_a_sequence_by_the_bundles_signers(repository):
    assert not read(repository).may_change_much
    repository.documents["models/demo/two.json"]["big_change_to"] = 3
    assert read(repository).may_change_much
