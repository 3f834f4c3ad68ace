"""Releases that a hostile or broken repository may offer, each wrong in one way and right in every other.

A kind changes a whole repository at release 2 for the worse. Everything is signed with the true keys, and hashes fit
again wherever the kind does not say otherwise, so that each attack gets as deep as it can.
"""

from __future__ import annotations

import hashlib
import json
import struct
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gallery_sync.device.fetch import cache_folder
from gallery_sync.device.source import Source
from gallery_sync.formats.fields import canonical_json
from gallery_sync.repository.metadata import SignedMetadata
from gallery_sync.transport.download import Fetcher, Retry
from gallery_sync.transport.repository_files import FolderTransport
from gallery_sync.trust.errors import MetadataError
from tests.sync_samples import keys_of, newest, published, time_now

Tree = dict[str, Any]
Change = Callable[[Tree], object]
EVIL = b"not what serves " * 32
SERVING = b"detector " * 9000  # `detector.onnx` of every bundle of `tests.store_samples`


@dataclass(frozen=True)
class _Signed:
    data: bytes

    @property
    def sha256(self) -> str:
        return hashlib.sha256(self.data).hexdigest()


@dataclass(frozen=True)
class _TakenForSigned:
    """A client of signed metadata that verifies nothing."""

    documents: dict[str, bytes]
    downloaded_bytes: int = 0

    def unchanged(self) -> bool:
        return False

    def refresh(self) -> None:
        pass

    def prune_targets(self) -> int:
        return 0

    def target(self, path: str, limit_bytes: int) -> _Signed | None:
        data = self.documents.get(path)
        if data is not None and len(data) > limit_bytes:
            raise MetadataError(f"{path}: found {len(data)} bytes, expected at most {limit_bytes}")
        return None if data is None else _Signed(data)


class Forge:
    """Changes a repository folder, and signs the changes with the true keys: as somebody who stole them could."""

    def __init__(self, repo: Path) -> None:
        self.repo = repo
        release, head = newest(repo)
        self.line = release.line
        self.release: Tree = json.loads(canonical_json(release))
        self.release["sequence"] += 1
        self.head: Tree = json.loads(canonical_json(head))
        self.head["deliveries"] = []
        self.logs: dict[str, Tree] = {
            category: json.loads(canonical_json(log)) for category, log in published(repo).logs.items()
        }
        self.raw: dict[str, bytes] = {}  # documents by path, in place of those above
        self.mixed = False  # the release does not name the head by its hash

    @property
    def space(self) -> Tree:
        """The states of `tyre`."""
        space: Tree = self.logs["tyre"]["spaces"][0]
        return space

    def put(self, data: bytes) -> Tree:
        """Store an object and return its reference."""
        sha256 = hashlib.sha256(data).hexdigest()
        path = self.path(sha256)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
        return {"sha256": sha256, "size": len(data)}

    def get(self, ref: Tree) -> bytes:
        """Return an object."""
        return self.path(ref["sha256"]).read_bytes()

    def path(self, sha256: str) -> Path:
        """Return the path of an object."""
        return self.repo / "objects" / sha256[:2] / sha256

    def documents(self) -> dict[str, bytes]:
        """Return the documents to sign, by path."""
        head = json.dumps(self.head).encode()
        if not self.mixed:
            self.release["bundle_head"] = hashlib.sha256(head).hexdigest()
        documents = {
            f"models/{self.line}/{self.release.get('bundle_id')}.json": head,
            f"rollout/{self.line}.json": json.dumps(self.release).encode(),
        }
        logs = {f"gallery/{self.line}/{name}.json": json.dumps(log).encode() for name, log in self.logs.items()}
        return documents | logs | self.raw

    def sign(self) -> None:
        """Sign and publish everything."""
        metadata = SignedMetadata.open(self.repo, keys_of(self.repo), time_now())
        for path, data in self.documents().items():
            metadata._changes.puts.setdefault(path.partition("/")[0], {})[path] = data
        metadata.commit(time_now())

    def source(self, state_dir: Path) -> Source:
        """Return the repository for a device that takes every document for signed, which costs less time."""
        retry = Retry(attempts=1, sleep=lambda _: None, jitter=lambda: 0.5)
        objects = Fetcher(FolderTransport(self.repo), cache_folder(state_dir), retry)
        return Source(_TakenForSigned(self.documents()), objects, self.line, lambda: None, b"")

    def manifest_bytes(self, change: Callable[[bytes], bytes]) -> None:
        """Take other bytes as manifest."""
        self.head["manifest"] = self.put(change(self.get(self.head["manifest"])))

    def manifest(self, change: Change) -> None:
        """Change the manifest."""

        def changed(data: bytes) -> bytes:
            tree = json.loads(data)
            change(tree)
            return json.dumps(tree).encode()

        self.manifest_bytes(changed)

    def file(self, path: str, data: bytes = EVIL, **claims: object) -> None:
        """List another file in the manifest."""
        entry = {"path": path, **self.put(data), **claims}
        self.manifest(lambda tree: tree["files"].append(entry))

    def next_state(self) -> int:
        """Let the release be of a gallery that no device has yet, and return its sequence."""
        self.release["gallery_sequence"] += 1
        self.logs["tyre"]["sequence"] = self.release["gallery_sequence"]
        return int(self.release["gallery_sequence"])

    def base(self, data: bytes, **claims: object) -> None:
        """Let a base of other bytes be the newest state of `tyre`."""
        counts = {"live_root": "0" * 64, "items": 3, "vectors": 6}
        base = {"sequence": self.next_state(), "object": self.put(data), **counts, **claims}
        self.space.update(bases=[base], segments=[])

    def segment(self, data: bytes, **claims: object) -> None:
        """Let a segment of other bytes lead to the newest state of `tyre`."""
        counts = {"live_root": "0" * 64, "upserts": 1, "deletes": 0}
        after = self.release["gallery_sequence"]
        segment = {"after": after, "sequence": self.next_state(), "object": self.put(data), **counts, **claims}
        self.space["segments"].append(segment)


Act = Callable[[Forge], object]


def without_deliveries(repo: Path) -> None:
    """Publish the newest release again, with whole files alone."""
    forge = Forge(repo)
    forge.release["sequence"] -= 1
    forge.sign()


def _missing_object(forge: Forge) -> None:
    forge.file("models/extra.onnx")
    forge.path(hashlib.sha256(EVIL).hexdigest()).unlink()


def _other_bytes(forge: Forge) -> None:
    forge.file("models/extra.onnx")
    forge.path(hashlib.sha256(EVIL).hexdigest()).write_bytes(EVIL[::-1])


def _one_hash_two_sizes(forge: Forge) -> None:
    def change(tree: Tree) -> None:
        tree["files"] += [{"path": f"{n}.bin", **forge.put(EVIL)} for n in "ab"]
        tree["files"][-1]["size"] -= 1

    forge.manifest(change)


def _sizes(*sizes: int) -> Act:
    def act(forge: Forge) -> None:
        files = [{"path": f"{n}.bin", "sha256": f"{n:064x}", "size": size} for n, size in enumerate(sizes, 10)]
        forge.manifest(lambda tree: tree["files"].extend(files))

    return act


def _raw(name: str, data: bytes | Callable[[Forge], bytes]) -> Act:
    """Sign any bytes as a document."""
    paths = {"release": "rollout/demo.json", "log": "gallery/demo/tyre.json"}
    return lambda forge: forge.raw.update({paths[name]: data if isinstance(data, bytes) else data(forge)})


def _number(value: str) -> Act:
    def text(forge: Forge) -> bytes:
        head = json.dumps(forge.head).encode()
        tree = forge.release | {"sequence": "HERE", "bundle_head": hashlib.sha256(head).hexdigest()}
        return json.dumps(tree).replace('"HERE"', value).encode()

    return _raw("release", text)


def _path(path: str, data: bytes = EVIL) -> Act:
    return lambda forge: forge.file(path, data)


def _release(**fields: object) -> Act:
    return lambda forge: forge.release.update(fields)


def _head(**fields: object) -> Act:
    return lambda forge: forge.head.update(fields)


def _log(**fields: object) -> Act:
    return lambda forge: forge.logs["tyre"].update(fields)


def _space(**fields: object) -> Act:
    return lambda forge: forge.space.update(fields)


def _manifest(**fields: object) -> Act:
    return lambda forge: forge.manifest(lambda tree: tree.update(fields))


def _manifest_text(old: str, new: str) -> Act:
    return lambda forge: forge.manifest_bytes(lambda data: data.replace(old.encode(), new.encode(), 1))


def _mixed_head(forge: Forge) -> None:
    """Name the head of the release before."""
    forge.mixed = True
    forge.head["security_floor"] = 1


def _older_bundle(forge: Forge) -> None:
    """Name another bundle than the head is of."""
    forge.head["bundle_id"] = "one"


def _swap(name: str) -> Act:
    def act(forge: Forge) -> None:
        base = forge.space["bases"][-1]["object"]
        if name == "manifest":
            forge.head["manifest"] = base
        elif name == "release":
            forge.raw["rollout/demo.json"] = json.dumps(forge.logs["tyre"]).encode()
        elif name == "log":
            forge.raw["gallery/demo/tyre.json"] = json.dumps(forge.release | {"bundle_head": "0" * 64}).encode()
        elif name == "base":
            forge.base(forge.get(forge.head["manifest"]))

    return act


def _base(data: Callable[[Forge], bytes], **claims: object) -> Act:
    return lambda forge: forge.base(data(forge), **claims)


def _old_store(forge: Forge) -> bytes:
    return forge.get(forge.space["bases"][0]["object"])


def _segment(data: Callable[[bytes], bytes], **claims: object) -> Act:
    """Change the bytes of the newest segment; no base leads around it."""

    def act(forge: Forge) -> None:
        forge.segment(data(forge.get(forge.space["segments"][-1]["object"])), **claims)

    return act


def _record(change: Callable[[bytearray], object]) -> Callable[[bytes], bytes]:
    """Change the first record of a segment; its checksum fits."""

    def act(data: bytes) -> bytes:
        (size,) = struct.unpack_from("<I", data, 53)
        record = bytearray(data[52 : 57 + size])
        change(record)
        return data[:52] + bytes(record) + struct.pack("<I", zlib.crc32(record)) + data[61 + size :]

    return act


def _header(at: int, value: bytes) -> Callable[[bytes], bytes]:
    """Change the header of a segment; its checksum fits."""

    def act(data: bytes) -> bytes:
        header = bytearray(data[:48])
        header[at : at + len(value)] = value
        return bytes(header) + struct.pack("<I", zlib.crc32(header)) + data[52:]

    return act


def _set(record: bytearray, at: int, value: bytes) -> None:
    record[at : at + len(value)] = value


def _missing_base(forge: Forge) -> None:
    forge.base(EVIL)
    forge.path(hashlib.sha256(EVIL).hexdigest()).unlink()


def _missing_segment_and_base(forge: Forge) -> None:
    forge.segment(EVIL)
    forge.path(hashlib.sha256(EVIL).hexdigest()).unlink()


def _categories(count: int) -> Act:
    """Embed very many categories, of which each has a log."""

    def act(forge: Forge) -> None:
        names = [f"c{n}" for n in range(count)]
        forge.manifest(lambda tree: tree["embedders"][0].update(categories=names))

    return act


KINDS: dict[str, Act] = {
    # paths
    "lists bundle.json": _path("bundle.json"),
    "lists BUNDLE.JSON": _path("BUNDLE.JSON"),
    "lists ./bundle.json": _path("./bundle.json"),
    "lists bundle.json with the bytes of a serving file": _path("bundle.json", SERVING),
    "lists ./bundle.json with the bytes of a serving file": _path("./bundle.json", SERVING),
    "alias of a serving file": _path("./detector.onnx"),
    "alias of a serving file with //": _path(".//detector.onnx"),
    "serving file twice": _path("detector.onnx"),
    "alias with ./": _path("./models/tyre.onnx"),
    "alias with //": _path("models//tyre.onnx"),
    "alias with /./": _path("models/./tyre.onnx"),
    "path twice": _path("models/tyre.onnx"),
    "path in other case": _path("Models/TYRE.onnx"),
    "path of a folder": _path("models.bin/../models/tyre.onnx"),
    "file as a folder": _path("detector.onnx/x.json"),
    "M1 path upwards": _path("../x.json"),
    "M1 path to the pointer": _path("../../current.json"),
    "M1 absolute path": _path("/tmp/finesight-hostile.json"),
    "path with a backslash": _path("models\\tyre.onnx"),
    "path with a drive": _path("C:x.onnx"),
    "path with a NUL": _path("a\0b.json"),
    "path with an escape sequence": _path("a\n\x1b[2Jb.json"),
    "path with a long part": _path("x" * 300 + ".json"),
    "long path": _path("x/" * 2500 + "x.json"),
    "empty path": _path(""),
    "M2 path of a program": _path("models/x.so"),
    # sizes and hashes
    "missing object": _missing_object,
    "T3 object of other bytes": _other_bytes,
    "size too small": lambda forge: forge.file("x.bin", size=100),
    "size too large": lambda forge: forge.file("x.bin", size=10_000),
    "size negative": lambda forge: forge.file("x.bin", size=-1),
    "size of 2^70": lambda forge: forge.file("x.bin", size=2**70),
    "size as text": lambda forge: forge.file("x.bin", size="many"),
    "one file of 9 GiB": _sizes(9 << 30),
    "two files of 5 GiB": _sizes(5 << 30, 5 << 30),
    "one hash with two sizes": _one_hash_two_sizes,
    "hash that is a path": lambda forge: forge.file("x.bin", sha256="../" * 21 + "x"),
    "20,000 files": _sizes(*[1] * 20_000),
    # documents
    "empty release": _raw("release", b""),
    "release that is null": _raw("release", b"null"),
    "release that is a list": _raw("release", b"[]"),
    "release in UTF-16": _raw("release", lambda forge: json.dumps(forge.release).encode("utf-16")),
    "release that is not text": _raw("release", bytes(range(256))),
    "release of a megabyte": _raw("release", b" " * (1 << 20)),
    "release nested 10,000 deep": _raw("release", b'{"line":' + b"[" * 10_000),
    "release with a key twice": _number('9, "sequence": 3'),
    "release with NaN": _number("NaN"),
    "login page": _raw("release", b"<!DOCTYPE html><html><body>Please log in</body></html>"),
    "release of another schema": _release(schema=3),
    "release without a bundle": lambda forge: forge.release.pop("bundle_id"),
    "T3 release of a head that nobody signed": _release(bundle_id="three"),
    "T3 mix of a release and a newer head": _mixed_head,
    "T3 head of another bundle": _older_bundle,
    "release that is a gallery log": _swap("release"),
    "manifest that is a store": _swap("manifest"),
    "log that is a release": _swap("log"),
    "manifest of 4 GiB": _head(manifest={"sha256": "0" * 64, "size": 4 << 30}),
    "bundle id with slashes": _head(bundle_id="../../x"),
    "bundle head of another sequence": _head(sequence=77),
    "bundle head of another line": _head(line="other"),
    "bundle head that needs a newer package": _head(needs="99.0"),
    "bundle head that needs a newer gallery": _head(gallery_from=1000),
    "manifest of 4 MiB and a byte": lambda forge: forge.manifest_bytes(lambda data: data.ljust((4 << 20) + 1)),
    "manifest nested 100,000 deep": _manifest_text('"files"', f'"evaluation": {"[" * 100_000}, "files"'),
    "manifest with a key twice": _manifest_text('"files"', '"files": [], "files"'),
    "manifest with NaN": _manifest(evaluation={"x": float("nan")}),
    "manifest that is not text": lambda forge: forge.manifest_bytes(lambda data: data + b"\xff"),
    "manifest without a file": _manifest(files=[]),
    "manifest without its model": lambda forge: forge.manifest(lambda tree: tree["files"].pop()),
    "manifest for no engine": _manifest(runtimes=["npu-9"]),
    # sequence and line
    "sequence 2^62": _number(str(2**62)),
    "sequence 2^53": _number(str(2**53)),
    "sequence two million above": _number("2000003"),
    "sequence 0": _number("0"),
    "sequence negative": _number("-5"),
    "sequence as text": _number('"3x"'),
    "sequence with a fraction": _number("3.5"),
    "sequence of 5,000 digits": _number("9" * 5000),
    "F8 older sequence": _number("1"),
    "another line": _release(line="other"),
    "line with slashes": _release(line="../../x"),
    "gallery sequence 2^53": _release(gallery_sequence=2**53),
    "gallery sequence negative": _release(gallery_sequence=-1),
    # gallery logs
    "G1 log of another line": _log(line="other"),
    "G2 log of another category": _log(category="wheel"),
    "G2 log of a category that is a path": _log(category="../../../slots/a/bundle"),
    "G3 log that is empty": _raw("log", b""),
    "G3 log with NaN": _log(note=float("nan")),
    "G3 log of a negative sequence": _log(sequence=-1),
    "G4 log whose states go back": lambda forge: forge.space.update(bases=forge.space["bases"] * 2),
    "G4 log with a segment that begins elsewhere": lambda forge: forge.space["segments"][-1].update(after=77_000),
    "G5 log of 5,000 segments": lambda forge: forge.space.update(segments=forge.space["segments"] * 5000),
    "G8 log of another space of one dimension": _space(space_id="b" * 64),
    "G8 log of other vectors": _space(heads=[{"name": "class", "dim": 4096}]),
    "G9 base of another live root": _base(_old_store, live_root="f" * 64),
    "G9 base that is a model": _base(lambda _forge: EVIL),
    "G9 base that is a manifest": _swap("base"),
    "G9 base that is empty": _base(lambda _forge: b""),
    "G9 base cut in half": _base(lambda forge: _old_store(forge)[:8000]),
    "G9 base that is a sqlite header": _base(lambda _forge: b"SQLite format 3\0".ljust(4096, b"\xff")),
    "G9 base that is missing": _missing_base,
    "G9 base of 9 GiB": _base(lambda _forge: b"", object={"sha256": "0" * 64, "size": 9 << 30}),
    "G11 20,000 categories of one embedder": _categories(20_000),
    # segments
    "G12 segment that is missing": _missing_segment_and_base,
    "G12 segment that is empty": _segment(lambda _data: b""),
    "G12 segment cut in half": _segment(lambda data: data[: len(data) // 2]),
    "G12 segment with bytes after its end": _segment(lambda data: data + b"more"),
    "G12 segment with a wrong checksum": _segment(lambda data: data[:-1] + b"?"),
    "G12 segment of other magic": _segment(_header(0, b"FSGSEX")),
    "G12 segment of another space": _segment(_header(8, b"\xbb" * 32)),
    "G12 segment of 2^32 numbers a vector": _segment(_header(40, b"\xff" * 4)),
    "G12 segment of 2^32 records": _segment(_header(44, b"\xff" * 4)),
    "G12 segment of other counts": _segment(lambda data: data, upserts=7),
    "G12 segment of another live root": _segment(lambda data: data),
    "G12 segment with a record of 4 GiB": _segment(_record(lambda record: _set(record, 1, b"\xff" * 4))),
    "G12 segment with an id of 64 KiB": _segment(_record(lambda record: _set(record, 5, b"\xff\xff"))),
    "G12 segment with an id that is not text": _segment(_record(lambda record: _set(record, 7, b"\xff\xff"))),
    "G12 segment with NaN": _segment(_record(lambda record: _set(record, len(record) - 28, b"\x00\x00\xc0\x7f"))),
    "G12 segment with infinity": _segment(_record(lambda record: _set(record, len(record) - 28, b"\x00\x00\x80\x7f"))),
    "G12 segment with a record of no kind": _segment(_record(lambda record: _set(record, 0, b"X"))),
    "G12 segment of 2 GiB": _segment(lambda data: data, object={"sha256": "0" * 64, "size": 2 << 30}),
}


def forge_release(kind: str, repo: Path) -> Forge:
    """Return a hostile change of a repository at release 2; it is not signed yet."""
    forge = Forge(repo)
    KINDS[kind](forge)
    return forge
