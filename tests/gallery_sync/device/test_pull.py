"""Pulling to a device over HTTP on loopback: what it stages, resumes, refuses and repairs."""

from __future__ import annotations

import json
import resource
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

from edge.bundle import slots
from edge.bundle.active_pointer import read_active_pointer, read_staged_pointer
from edge.errors import BundleError, SyncError
from gallery_sync.cli import main
from gallery_sync.device.pull import pull
from gallery_sync.formats.fields import canonical_json, object_path
from gallery_sync.repository.publish import publish
from gallery_sync.transport.download import Retry
from gallery_sync.transport.repository_files import FolderTransport, HttpTransport, open_transport
from gallery_sync.trust.hashes_only import HashesOnly
from tests.power_cut import IMAGES, PowerCut
from tests.store_samples import SPACE, make_bundle, make_gallery, trusted
from tests.sync_samples import WAITS, active, embedder_for, publish_release, pull_from
from tests.sync_server import Server, answer, cut_after, healthy, silent


def test_pull_stages_without_activating(device, server):
    pulled = pull_from(server, device)
    assert (pulled.sequence, pulled.slot, pulled.bundle_id, pulled.serving) == (2, "b", "two", False)
    assert active(device) == ("one", 3)
    slots.activate(device, prove=trusted)
    assert active(device) == ("two", 4)
    assert pull_from(server, device).serving


def test_any_text_names_a_category(server, tmp_path):
    names = ("AM General", "果汁", "a/b", "..", "😀", "Cola", "cola", "tyre")
    bundle = make_bundle(tmp_path / "named", "named", 5)
    gallery = make_gallery(tmp_path / "names", 2, categories=names)
    publish(server.folder, bundle, gallery, line="demo", created_at="2026-01-01T00:00:00Z")
    pull_from(server, tmp_path / "other")
    slots.activate(tmp_path / "other", prove=trusted)
    held = slots.read_active(tmp_path / "other")[1]
    assert set(held.categories) == set(names)
    assert len({held.path(name).name.casefold() for name in names}) == len(names)
    assert len(list((server.folder / "galleries/demo").iterdir())) == len(names)


def test_local_files_are_not_downloaded_again(device, server):
    pulled = pull_from(server, device)
    detector = (server.folder.parent / "one" / "detector.onnx").stat().st_size
    assert detector > pulled.downloaded_bytes / 2
    # two heads, the manifest and two files
    assert len([path for path, _ in server.requests if path.startswith("objects/")]) == 5


def test_damaged_local_file_is_not_reused(device, server):
    (device / "slots" / "a" / "detector.onnx").write_bytes(b"x" * 81000)
    pull_from(server, device)
    slots.activate(device, prove=trusted)
    assert active(device) == ("two", 4)


def test_interrupted_download_is_resumed(device, server):
    path = embedder_for(server)
    server.faults[path] = [cut_after(1000), cut_after(500), healthy]
    pull_from(server, device)
    assert [range_ for name, range_ in server.requests if name == path] == ["", "bytes=1000-", "bytes=1500-"]
    assert WAITS == [1.0, 2.0]


def test_download_is_resumed_by_the_next_pull(device, server):
    path = embedder_for(server)
    server.faults[path] = [cut_after(1000), answer(bytes, 503)]
    with pytest.raises(SyncError, match=r"models/tyre\.onnx: gave up after 4 attempts: .*the server answered HTTP 503"):
        pull_from(server, device)
    assert len(WAITS) == 3
    assert active(device) == ("one", 3)
    server.faults.clear()
    server.requests.clear()
    pull_from(server, device)
    assert (path, "bytes=1000-") in server.requests
    slots.activate(device, prove=trusted)
    assert active(device) == ("two", 4)


def test_server_that_ignores_ranges_is_read_from_the_start(device, server):
    path = embedder_for(server)
    server.faults[path] = [cut_after(1000), answer(lambda data: data)]
    pull_from(server, device)
    slots.activate(device, prove=trusted)
    assert active(device) == ("two", 4)


def test_part_of_another_object_is_deleted_and_downloaded_again(device, server):
    path = embedder_for(server)
    cache = device / "cache" / "sync"
    cache.mkdir(parents=True)
    (cache / f"{Path(path).name}.part").write_bytes(b"?" * 100)
    (cache / f"{'0' * 64}.part").write_bytes(b"of an older release")
    pull_from(server, device)
    assert [range_ for name, range_ in server.requests if name == path] == ["bytes=100-", ""]
    assert not cache.exists()


ONE_ERROR = [
    ([answer(lambda data: b"X" + data[1:])], r"models/tyre\.onnx: found SHA-256 .*, expected"),
    ([answer(lambda data: data + b"more")], r"models/tyre\.onnx: the server sent more than the expected 8000 bytes"),
    ([answer(lambda data: data[:100])], r"gave up after 4 attempts: found an answer of 100 bytes, expected 8000"),
    ([cut_after(10)], r"gave up after 4 attempts: found 40 bytes, expected 8000"),
    ([answer(bytes, 404)], r"the server answered HTTP 404 Not Found"),
    ([answer(bytes, 403)], r"the server answered HTTP 403 Forbidden"),
    ([answer(bytes, 500)], r"gave up after 4 attempts: .*answered HTTP 500"),
    (
        [answer(lambda data: data, Content_Encoding="gzip")],
        r"the server sent content encoding 'gzip'; turn compression off",
    ),
    (
        [cut_after(10), answer(lambda data: data, 206, Content_Range="bytes 7-9/10")],
        r"found content range 'bytes 7-9/10', expected one from byte 10",
    ),
    ([cut_after(10), answer(bytes, 416)], r"the server answered HTTP 416"),
]


@pytest.mark.parametrize(("faults", "message"), ONE_ERROR)
def test_fault_is_one_error_and_the_active_release_stays(device, server, faults, message):
    server.faults[embedder_for(server)] = list(faults)
    with pytest.raises(SyncError, match=message) as caught:
        pull_from(server, device)
    assert "\n" not in str(caught.value)
    assert active(device) == ("one", 3)
    assert read_staged_pointer(device) is None
    server.faults.clear()
    pull_from(server, device)  # once the fault is gone, so is the error
    slots.activate(device, prove=trusted)
    assert active(device) == ("two", 4)


def test_pull_gives_up_on_a_silent_server(device, server):
    server.faults["release.json"] = [silent]
    with pytest.raises(SyncError, match=r"release\.json: gave up after 4 attempts: .*timed out"):
        pull_from(server, device, timeout_s=0.05)
    assert active(device) == ("one", 3)


def test_pull_gives_up_without_a_server(device):
    retry = Retry(attempts=2, sleep=WAITS.append, jitter=lambda: 0.5)
    with pytest.raises(SyncError, match=r"gave up after 2 attempts: .*no response: .*refused"):
        pull(HttpTransport("http://127.0.0.1:9", 1.0), device, HashesOnly(), retry=retry)
    assert active(device) == ("one", 3)


def test_release_of_more_than_4_mib_is_refused(device, server):
    server.faults["release.json"] = [answer(lambda _: b" " * 5_000_000)]
    with pytest.raises(SyncError, match=r"release\.json: larger than the limit of 4194304 bytes"):
        pull_from(server, device)
    assert active(device) == ("one", 3)


def test_too_little_space_is_an_error_before_large_downloads(device, server):
    with pytest.raises(SyncError, match=r"device: 1000 bytes are free, but release 2 needs \d+"):
        pull_from(server, device, free=1000)
    assert embedder_for(server) not in [path for path, _ in server.requests]
    assert active(device) == ("one", 3)


def test_full_disk_is_one_error_and_does_not_stay_full(device, server):
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4000, hard))  # no file may grow beyond this
    try:
        with pytest.raises(SyncError, match=r"models/tyre\.onnx: cannot store 8000 bytes: File too large"):
            pull_from(server, device)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert not (device / "cache" / "sync").exists()
    assert active(device) == ("one", 3)


def test_older_release_is_rejected(device, server, tmp_path):
    old = (server.folder / "release.json").read_bytes()
    publish_release(tmp_path, "three", 3, 5)
    pull_from(server, device)
    (server.folder / "release.json").write_bytes(old)
    with pytest.raises(SyncError, match="release 2 is older than release 3, which this device had"):
        pull_from(server, device)


def edit_release(server: Server, change: Callable[[dict], None]) -> None:
    envelope = json.loads((server.folder / "release.json").read_text())
    change(envelope["signed"])
    (server.folder / "release.json").write_text(json.dumps(envelope))


def test_head_of_another_category_is_rejected(device, server):
    edit_release(server, lambda signed: signed["gallery"]["heads"].update({"../x": signed["bundle"]}))
    with pytest.raises(SyncError, match=r"gallery head '\.\./x': not a valid gallery head"):
        pull_from(server, device)
    assert active(device) == ("one", 3)


def test_heads_of_another_generation_are_rejected(device, server):
    edit_release(server, lambda signed: signed["gallery"].update(generation="0" * 16))
    with pytest.raises(SyncError, match=r"found heads of generation .*, expected 0000000000000000"):
        pull_from(server, device)


def test_gallery_of_another_space_is_not_staged(device, server, tmp_path):
    other = publish(
        tmp_path / "repo2",
        make_bundle(tmp_path / "b2", "other", 9, space_id="b" * 64),
        make_gallery(tmp_path / "other", 2, space_id="b" * 64),
        line="demo",
        created_at="now",
        sequence=9,
    )
    for ref in other.gallery.heads.values():
        head = (tmp_path / "repo2" / object_path(ref.sha256)).read_bytes()
        for sha256 in (ref.sha256, json.loads(head)["base"]["sha256"]):
            target = server.folder / object_path(sha256)
            target.parent.mkdir(exist_ok=True)
            target.write_bytes((tmp_path / "repo2" / object_path(sha256)).read_bytes())
    edit_release(server, lambda signed: signed.update(gallery=json.loads(canonical_json(other.gallery))))
    with pytest.raises(SyncError, match=r"release 2 cannot be used: .*'tyre'.* found gallery .* in embedding space b"):
        pull_from(server, device)
    assert active(device) == ("one", 3)
    assert read_staged_pointer(device) is None


def test_bundle_compatible_with_the_old_gallery_is_pulled_with_it(device, tmp_path):
    newer = make_bundle(tmp_path / "b3", "three", 9, space_id="b" * 64, compatible=(SPACE,))
    publish(tmp_path / "repo3", newer, make_gallery(tmp_path / "g3", 5), line="demo", created_at="now", sequence=9)
    pulled = pull(open_transport((tmp_path / "repo3").as_uri()), device, HashesOnly())
    assert pulled.bundle_id == "three"
    slots.activate(device, prove=trusted)
    assert active(device) == ("three", 5)


def test_repository_folder_is_pulled_without_a_server(tmp_path, device):
    transport = open_transport((tmp_path / "repo").as_uri())
    assert isinstance(transport, FolderTransport)
    assert pull(transport, device, HashesOnly()).bundle_id == "two"
    with pytest.raises(SyncError, match=r"missing/release\.json: cannot read"):
        pull(open_transport((tmp_path / "missing").as_uri()), device, HashesOnly())
    with pytest.raises(SyncError, match="found scheme 'ftp', expected http, https or file"):
        open_transport("ftp://example/repo")


@pytest.mark.parametrize("image", IMAGES)
def test_power_cut_during_a_pull_keeps_the_active_release(tmp_path, device, image):
    transport = FolderTransport(tmp_path / "repo")
    n = 0
    while True:
        n += 2
        with PowerCut(n, image) as power, suppress(SyncError, BundleError):
            pull(transport, device, HashesOnly())
        assert active(device) == ("one", 3)
        if not power.happened:
            break
    assert n > 20
    slots.activate(device, prove=trusted)
    assert active(device) == ("two", 4)


def test_publish_pull_and_check_commands(tmp_path, capsys):
    folder, gallery = make_bundle(tmp_path / "one", "one"), make_gallery(tmp_path / "g")
    repo, device = tmp_path / "repo", tmp_path / "device"
    assert main(["publish", str(repo), "--bundle", str(folder), "--gallery", str(gallery), "--line", "demo"]) == 0
    assert main(["check", str(repo), "--json"]) == 0
    assert capsys.readouterr().out.endswith('{"whole": 6, "wrong": 0}\n')
    assert main(["pull", repo.as_uri(), "--state-dir", str(device), "--json"]) == 0
    assert not json.loads(capsys.readouterr().out)["serving"]
    assert read_active_pointer(device) is None
    assert main(["pull", repo.as_uri(), "--state-dir", str(device), "--activate"]) == 1  # its models are not ONNX files
    assert read_active_pointer(device) is None
    assert "cannot load it" in capsys.readouterr().err
    assert main(["pull", "ftp://x", "--state-dir", str(device)]) == 1
    assert capsys.readouterr().err == "edge-sync: ftp://x: found scheme 'ftp', expected http, https or file\n"
    next((repo / "objects").rglob("*/*")).write_bytes(b"")
    assert main(["check", str(repo)]) == 1


def test_pulled_release_is_activated_after_its_probes_pass(tmp_path):
    demo = Path(__file__).parents[3] / "demo"
    repo, device = tmp_path / "repo", tmp_path / "device"
    assert main(["publish", str(repo), "--bundle", str(demo / "bundle"), "--gallery", str(demo / "gallery")]) == 0
    assert main(["pull", repo.as_uri(), "--state-dir", str(device), "--activate"]) == 0
    assert read_active_pointer(device).bundle_id == "demo-1"
