"""Releases that a hostile or broken repository may offer, each wrong in one way and right in every other.

A kind changes a whole repository at release 2 for the worse. Hashes, heads and the generation id fit again wherever the
kind does not say otherwise, so that each attack gets as deep as it can.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

Tree = dict[str, Any]
Change = Callable[[Tree], object]
EVIL = b"not what serves " * 32
SERVING = b"detector " * 9000  # `detector.onnx` of every bundle of `tests.store_samples`


class Forge:
    """Changes a repository folder. It knows the format by heart, not through the code that it attacks."""

    def __init__(self, repo: Path) -> None:
        self.repo = repo
        self.signed: Tree = json.loads((repo / "release.json").read_text())["signed"]
        self.signed["sequence"] += 1

    def put(self, data: bytes) -> Tree:
        """Store an object and return its reference."""
        sha256 = hashlib.sha256(data).hexdigest()
        path = self.repo / "objects" / sha256[:2] / sha256
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
        return {"sha256": sha256, "size": len(data)}

    def get(self, ref: Tree) -> bytes:
        """Return an object."""
        return self.path(ref["sha256"]).read_bytes()

    def path(self, sha256: str) -> Path:
        """Return the path of an object."""
        return self.repo / "objects" / sha256[:2] / sha256

    def write(self, signed: Tree | None = None) -> None:
        """Publish the release."""
        self.write_bytes(json.dumps({"signed": signed or self.signed}).encode())

    def write_bytes(self, data: bytes) -> None:
        """Publish any bytes as release.json."""
        (self.repo / "release.json").write_bytes(data)

    def release(self, change: Change) -> None:
        """Publish a changed release."""
        change(self.signed)
        self.write()

    def bundle_head(self, change: Change) -> None:
        """Publish a release with a changed bundle head."""
        head = json.loads(self.get(self.signed["bundle"]))
        change(head)
        self.signed["bundle"] = self.put(json.dumps(head).encode())
        self.write()

    def manifest_bytes(self, change: Callable[[bytes], bytes]) -> None:
        """Publish a release with other bytes as manifest."""
        head = json.loads(self.get(self.signed["bundle"]))
        data = change(self.get(head["manifest"]))
        self.bundle_head(lambda tree: tree.update(manifest=self.put(data)))

    def manifest(self, change: Change) -> None:
        """Publish a release with a changed manifest."""

        def changed(data: bytes) -> bytes:
            tree = json.loads(data)
            change(tree)
            return json.dumps(tree).encode()

        self.manifest_bytes(changed)

    def file(self, path: str, data: bytes = EVIL, **claims: object) -> None:
        """Publish a release whose bundle lists one more file."""
        self.manifest(lambda tree: tree["files"].append({"path": path, **self.put(data), **claims}))

    def gallery_head(self, change: Change, category: str | None = None) -> None:
        """Publish a release with a changed gallery head, under another category if given; the generation fits."""
        heads = self.signed["gallery"]["heads"]
        old, ref = next(iter(heads.items()))
        head = json.loads(self.get(ref))
        change(head)
        del heads[old]
        heads[category or old] = self.put(json.dumps(head).encode())
        entry = {name: head[name] for name in ("space_id", "heads", "items", "vectors")}
        entry |= {"size": head["base"]["size"], "sha256": head["base"]["sha256"]}
        told = json.dumps({category or old: entry}, sort_keys=True)
        self.signed["gallery"]["generation"] = hashlib.sha256(told.encode()).hexdigest()[:16]
        self.write()


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


def _sizes(*sizes: int) -> Callable[[Forge], None]:
    def act(forge: Forge) -> None:
        files = [{"path": f"{n}.bin", "sha256": f"{n:064x}", "size": size} for n, size in enumerate(sizes, 10)]
        forge.manifest(lambda tree: tree["files"].extend(files))

    return act


def _twice(forge: Forge) -> None:
    text = json.dumps({"signed": forge.signed})
    sequence = f'"sequence": {forge.signed["sequence"]}'
    forge.write_bytes(text.replace(sequence, f'"sequence": 9000, {sequence}').encode())


def _store_of(data: Callable[[Forge], bytes], **claims: object) -> Callable[[Forge], None]:
    return lambda forge: forge.gallery_head(lambda head: head.update(base=forge.put(data(forge)), **claims))


def _categories(count: int) -> Callable[[Forge], None]:
    def act(forge: Forge) -> None:
        ref = next(iter(forge.signed["gallery"]["heads"].values()))
        forge.signed["gallery"]["heads"] = {f"c{n}": ref for n in range(count)}
        forge.write()

    return act


def _swap(name: str) -> Callable[[Forge], None]:
    def act(forge: Forge) -> None:
        bundle, (category, gallery) = forge.signed["bundle"], next(iter(forge.signed["gallery"]["heads"].items()))
        manifest = json.loads(forge.get(bundle))["manifest"]
        if name == "bundle":
            forge.signed["bundle"] = manifest
        elif name == "gallery":
            forge.signed["gallery"]["heads"][category] = bundle
        forge.write()
        if name == "manifest":
            forge.bundle_head(lambda head: head.update(manifest=gallery))

    return act


def _number(value: str) -> Callable[[Forge], None]:
    def act(forge: Forge) -> None:
        forge.signed["sequence"] = "HERE"
        forge.write_bytes(json.dumps({"signed": forge.signed}).replace('"HERE"', value).encode())

    return act


def _path(path: str, data: bytes = EVIL) -> Callable[[Forge], None]:
    return lambda forge: forge.file(path, data)


def _release(**fields: object) -> Callable[[Forge], None]:
    return lambda forge: forge.release(lambda signed: signed.update(fields))


def _gallery(**fields: object) -> Callable[[Forge], None]:
    return lambda forge: forge.release(lambda signed: signed["gallery"].update(fields))


def _head(**fields: object) -> Callable[[Forge], None]:
    return lambda forge: forge.bundle_head(lambda head: head.update(fields))


def _gallery_head(place: str | None = None, **fields: object) -> Callable[[Forge], None]:
    return lambda forge: forge.gallery_head(lambda head: head.update(fields), place)


def _manifest(**fields: object) -> Callable[[Forge], None]:
    return lambda forge: forge.manifest(lambda tree: tree.update(fields))


def _raw(data: bytes) -> Callable[[Forge], None]:
    return lambda forge: forge.write_bytes(data)


def _manifest_text(old: str, new: str) -> Callable[[Forge], None]:
    return lambda forge: forge.manifest_bytes(lambda data: data.replace(old.encode(), new.encode(), 1))


KINDS: dict[str, Callable[[Forge], None]] = {
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
    "path upwards": _path("../x.json"),
    "path to the pointer": _path("../../current.json"),
    "absolute path": _path("/tmp/finesight-hostile.json"),
    "path with a backslash": _path("models\\tyre.onnx"),
    "path with a drive": _path("C:x.onnx"),
    "path with a NUL": _path("a\0b.json"),
    "path with an escape sequence": _path("a\n\x1b[2Jb.json"),
    "path with a long part": _path("x" * 300 + ".json"),
    "long path": _path("x/" * 2500 + "x.json"),
    "empty path": _path(""),
    "path of a program": _path("models/x.so"),
    # sizes and hashes
    "missing object": _missing_object,
    "object of other bytes": _other_bytes,
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
    "empty release": _raw(b""),
    "release that is null": _raw(b"null"),
    "release that is a list": _raw(b"[]"),
    "release in UTF-16": lambda forge: forge.write_bytes(json.dumps({"signed": forge.signed}).encode("utf-16")),
    "release that is not text": _raw(bytes(range(256))),
    "release of 4 MiB and a byte": _raw(b" " * ((4 << 20) + 1)),
    "release nested 100,000 deep": _raw(b'{"signed":' + b"[" * 100_000),
    "release with a key twice": _twice,
    "release with NaN": _number("NaN"),
    "login page": _raw(b"<!DOCTYPE html><html><body>Please log in</body></html>"),
    "release of another schema": _release(schema=2),
    "release without a bundle": lambda forge: forge.release(lambda signed: signed.pop("bundle")),
    "date of a megabyte": _release(created_at="x" * 1_000_000),
    "bundle head that is the manifest": _swap("bundle"),
    "manifest that is a gallery head": _swap("manifest"),
    "gallery head that is the bundle head": _swap("gallery"),
    "bundle head of 4 GiB": _release(bundle={"sha256": "0" * 64, "size": 4 << 30}),
    "bundle head of another bundle": _head(bundle_id="other"),
    "bundle id with slashes": _head(bundle_id="../../x"),
    "bundle head of another sequence": _head(sequence=77),
    "bundle head of another line": _head(line="other"),
    "manifest of 4 MiB and a byte": lambda forge: forge.manifest_bytes(lambda data: data.ljust((4 << 20) + 1)),
    "manifest nested 100,000 deep": _manifest_text('"files"', f'"evaluation": {"[" * 100_000}, "files"'),
    "manifest with a key twice": _manifest_text('"files"', '"files": [], "files"'),
    "manifest with NaN": _manifest(evaluation={"x": float("nan")}),
    "manifest that is not text": lambda forge: forge.manifest_bytes(lambda data: data + b"\xff"),
    "manifest without a file": _manifest(files=[]),
    "manifest without its model": lambda forge: forge.manifest(lambda tree: tree["files"].pop()),
    # sequence and line
    "sequence 2^62": _number(str(2**62)),
    "sequence 2^53": _number(str(2**53)),
    "sequence two million above": _number("2000003"),
    "sequence 0": _number("0"),
    "sequence negative": _number("-5"),
    "sequence as text": _number('"3x"'),
    "sequence with a fraction": _number("3.5"),
    "sequence of 5,000 digits": _number("9" * 5000),
    "older sequence": _number("1"),
    "another line": _release(line="other"),
    "line with slashes": _release(line="../../x"),
    # galleries
    "generation with slashes": _gallery(generation="../../slots/a"),
    "generation of others": _gallery(generation="0" * 16),
    "category that is a path": _gallery_head("../../../slots/a/bundle", category="../../../slots/a/bundle"),
    "category of another head": _gallery_head("other", category="tyre"),
    "category with a NUL": _gallery_head("a\0b", category="a\0b"),
    "category of a surrogate": _gallery_head("\ud800", category="\ud800"),
    "category of 100,000 letters": _gallery_head("x" * 100_000, category="x" * 100_000),
    "20,000 categories": _categories(20_000),
    "gallery head of a megabyte": _gallery_head(note="x" * 1_000_000),
    "gallery head of another line": _gallery_head(line="other"),
    "gallery head with NaN": _gallery_head(items=float("nan")),
    "gallery head of more items": _gallery_head(items=10**9),
    "store that is a model": _store_of(lambda _forge: EVIL),
    "store that is empty": _store_of(lambda _forge: b""),
    "store cut in half": lambda forge: forge.gallery_head(
        lambda head: head.update(base=forge.put(forge.get(head["base"])[: head["base"]["size"] // 2]))
    ),
    "store that is a sqlite header": _store_of(lambda _forge: b"SQLite format 3\0".ljust(4096, b"\xff")),
    "gallery of another space": _gallery_head(space_id="b" * 64),
    "gallery of other vectors": _gallery_head(heads=[{"name": "class", "dim": 4096}]),
}


def forge_release(kind: str, repo: Path) -> None:
    """Change a repository at release 2 into a hostile one."""
    KINDS[kind](Forge(repo))
