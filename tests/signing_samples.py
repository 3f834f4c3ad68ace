"""Small signed repositories, the people who sign them, and a client of The Update Framework that reads them."""

from __future__ import annotations

import atexit
import functools
import shutil
import tempfile
from collections.abc import Iterator
from datetime import datetime, timedelta, timezone
from pathlib import Path

from tuf.api.exceptions import DownloadHTTPError
from tuf.ngclient import FetcherInterface, Updater

from gallery_sync.repository.ceremonies.init import make_key_ring, make_repository
from gallery_sync.repository.keys import KeyRing
from gallery_sync.repository.metadata import SignedMetadata
from gallery_sync.repository.private_keys import HeldKey, make_key
from gallery_sync.repository.public_keys import read_public
from gallery_sync.repository.roles.commit import Committed

NOW = datetime(2026, 11, 28, 12, tzinfo=timezone.utc)
LINE = "demo"
MODEL, GALLERY, RELEASE = "models/demo/one.json", "gallery/demo/tyre.json", "rollout/demo.json"


def days(number: float) -> timedelta:
    return timedelta(days=number)


def development(tmp_path: Path, policy: str = "online") -> tuple[Path, KeyRing]:
    """Make a repository whose keys are all here, with one target of each role."""
    shutil.copytree(_made_once(policy), tmp_path, dirs_exist_ok=True)
    return tmp_path / "repo", KeyRing.open(tmp_path / "repo.keys")


@functools.cache
def _made_once(policy: str) -> Path:
    folder = Path(tempfile.mkdtemp())
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    repo, keys = folder / "repo", KeyRing.development(folder / "repo.keys")
    SignedMetadata.create(repo, LINE, policy, keys, NOW)
    publish(repo, keys, b'{"first":1}')
    return folder


def publish(repo: Path, keys: KeyRing, data: bytes, now: datetime = NOW) -> Committed:
    """Publish one target of each role."""
    metadata = SignedMetadata.open(repo, keys, now)
    for role, path in (("models", MODEL), ("gallery", GALLERY), ("rollout", RELEASE)):
        metadata.put(role, path, data)
    return metadata.commit(now)


def people(tmp_path: Path, *names: str) -> dict[str, HeldKey]:
    """Make a key for each person, in a folder of their own; return the public ones."""
    for name in names:
        make_key(tmp_path / name, name)
    return {name: HeldKey(read_public(tmp_path / name / f"{name}.pub")) for name in names}


def production(tmp_path: Path, names: tuple[str, ...] = ("alice", "bob", "carol")) -> tuple[Path, KeyRing, Path]:
    """Begin a repository whose root and targets need two of three people; return the draft, too."""
    repo = tmp_path / "repo"
    keys = make_key_ring(tmp_path / "repo.keys", {"root": list(people(tmp_path, *names).values())}, {})
    done = make_repository(repo, keys, NOW, line=LINE)
    assert done.draft is not None
    return repo, keys, done.draft


def key_of(tmp_path: Path, name: str) -> str:
    return str(tmp_path / name / f"{name}.pem")


class Folder(FetcherInterface):
    """Reads files below a folder as if from a web server."""

    def _fetch(self, url: str) -> Iterator[bytes]:
        path = Path(url.removeprefix("file://"))
        if not path.is_file():
            raise DownloadHTTPError("not found", 404)
        yield path.read_bytes()


class Client:
    """A device: it keeps its metadata from refresh to refresh."""

    def __init__(self, folder: Path, root: bytes) -> None:
        self.folder, self.root = folder, root
        (folder / "targets").mkdir(parents=True)

    def read(self, repo: Path, *paths: str, now: datetime = NOW) -> list[bytes | None]:
        """Refresh, and return the content of targets; None where there is none."""
        updater = Updater(
            str(self.folder),
            f"file://{repo}/metadata/",
            str(self.folder / "targets"),
            f"file://{repo}/targets/",
            fetcher=Folder(),
            bootstrap=self.root,
        )
        updater._trusted_set.reference_time = now
        updater.refresh()
        found = []
        for path in paths:
            info = updater.get_targetinfo(path)
            found.append(Path(updater.download_target(info)).read_bytes() if info else None)
        return found


def client(tmp_path: Path, repo: Path, name: str = "device") -> Client:
    """Make a device that trusts the first root of a repository."""
    return Client(tmp_path / name, (repo / "metadata/1.root.json").read_bytes())
