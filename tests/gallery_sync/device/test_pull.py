"""Pulling to a device over HTTP on loopback: what it stages, resumes, refuses and repairs."""

from __future__ import annotations

import hashlib
import json
import resource
import shutil
from contextlib import suppress
from datetime import timedelta
from pathlib import Path

import pytest

from edge.bundle import slots
from edge.bundle.active_pointer import read_active_pointer, read_staged_pointer
from edge.errors import BundleError, SyncError
from edge.gallery.generation import write_gallery_index
from gallery_sync.cli import main
from gallery_sync.device.pull import pull
from gallery_sync.device.security_floor import read_security_floor
from gallery_sync.enrolment.device_files import enrol
from gallery_sync.formats.enrolment import Enrolment
from gallery_sync.repository.metadata import SignedMetadata
from gallery_sync.repository.publish import Demands, publish
from gallery_sync.transport.download import Retry
from gallery_sync.transport.repository_files import FolderTransport, HttpTransport, open_transport
from gallery_sync.trust.errors import ExpiredError, MetadataError, RolledBackError
from tests.demo_bundles import DEMO, demo_manifest, write_variant
from tests.hostile_releases import without_deliveries
from tests.power_cut import IMAGES, PowerCut
from tests.store_samples import SPACE, make_bundle, make_gallery, trusted
from tests.sync_samples import (
    WAITS,
    active,
    embedder_for,
    keys_of,
    make_repository,
    newest,
    publish_release,
    pull_folder,
    pull_from,
    time_now,
    trusted_root,
)
from tests.sync_server import answer, cut_after, healthy, silent

TIMESTAMP = "metadata/timestamp.json"


def publish_pair(repo: Path, bundle: Path | None, gallery: Path | None) -> None:
    publish(repo, make_repository(repo), time_now(), bundle_folder=bundle, gallery_folder=gallery)


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
    manifest = json.loads((bundle / "bundle.json").read_text())
    manifest["embedders"][0]["categories"] = list(names)
    (bundle / "bundle.json").write_text(json.dumps(manifest))
    gallery = make_gallery(tmp_path / "names", 2, categories=names)
    publish_pair(server.folder, bundle, gallery)
    pull_from(server, tmp_path / "other")
    slots.activate(tmp_path / "other", prove=trusted)
    held = slots.read_active(tmp_path / "other")[1]
    assert set(held.categories) == set(names)
    assert len({held.path(name).name.casefold() for name in names}) == len(names)


def test_nothing_to_do_is_one_request_of_less_than_a_kilobyte(device, server):
    first = pull_from(server, device)
    server.requests.clear()
    second = pull_from(server, device)
    assert [path for path, _ in server.requests] == [TIMESTAMP]
    assert 0 < second.downloaded_bytes < 1024
    assert (second.sequence, second.slot, second.gallery, second.serving) == (2, first.slot, first.gallery, False)
    slots.activate(device, prove=trusted)
    assert pull_from(server, device).serving


def test_timestamp_that_was_signed_again_costs_small_documents_only(device, server):
    pull_from(server, device)
    SignedMetadata.open(server.folder, keys_of(server.folder), time_now()).refresh(time_now() + timedelta(hours=1))
    server.requests.clear()
    assert pull_from(server, device).sequence == 2
    assert not [path for path, _ in server.requests if path.startswith("objects/")][1:]  # but the manifest


def test_interrupted_pull_is_not_taken_for_a_finished_one(device, server):
    pull_from(server, device)
    publish_release(server.folder.parent, "three", 3, 5)
    without_deliveries(server.folder)
    server.faults[embedder_for(server)] = [answer(bytes, 404)]
    with pytest.raises(SyncError, match="HTTP 404"):
        pull_from(server, device)
    server.faults.clear()
    assert pull_from(server, device).bundle_id == "three"


def test_local_files_are_not_downloaded_again(device, server):
    pulled = pull_from(server, device)
    detector = (server.folder.parent / "one" / "detector.onnx").stat().st_size
    assert detector > pulled.downloaded_bytes / 2
    # the manifest, a delivery of the embedder and the segment of the gallery
    assert len([path for path, _ in server.requests if path.startswith("objects/")]) == 3


def test_damaged_local_file_is_not_reused(device, server):
    (device / "slots" / "a" / "detector.onnx").write_bytes(b"x" * 81000)
    pull_from(server, device)
    slots.activate(device, prove=trusted)
    assert active(device) == ("two", 4)


def test_interrupted_download_is_resumed(device, server):
    without_deliveries(server.folder)
    path = embedder_for(server)
    server.faults[path] = [cut_after(1000), cut_after(500), healthy]
    pull_from(server, device)
    assert [range_ for name, range_ in server.requests if name == path] == ["", "bytes=1000-", "bytes=1500-"]
    assert WAITS == [1.0, 2.0]


def test_download_is_resumed_by_the_next_pull(device, server):
    without_deliveries(server.folder)
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
    without_deliveries(server.folder)
    path = embedder_for(server)
    server.faults[path] = [cut_after(1000), answer(lambda data: data)]
    pull_from(server, device)
    slots.activate(device, prove=trusted)
    assert active(device) == ("two", 4)


def test_part_of_another_object_is_deleted_and_downloaded_again(device, server):
    without_deliveries(server.folder)
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
        r"found content range 'bytes 7-9/10', expected one from byte \d+",
    ),
    ([cut_after(10), answer(bytes, 416)], r"the server answered HTTP 416"),
]


@pytest.mark.parametrize(("faults", "message"), ONE_ERROR)
def test_fault_is_one_error_and_the_active_release_stays(device, server, faults, message):
    without_deliveries(server.folder)
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
    server.faults[TIMESTAMP] = [silent]
    with pytest.raises(SyncError, match=r"timestamp\.json: gave up after 4 attempts: .*timed out"):
        pull_from(server, device, timeout_s=0.05)
    assert active(device) == ("one", 3)


def test_pull_gives_up_without_a_server(device):
    retry = Retry(attempts=2, sleep=WAITS.append, jitter=lambda: 0.5)
    with pytest.raises(SyncError, match=r"gave up after 2 attempts: .*no response: .*refused"):
        pull(HttpTransport("http://127.0.0.1:9", 1.0), device, retry=retry)
    assert active(device) == ("one", 3)


def test_timestamp_of_5_mb_is_refused(device, server):
    server.faults[TIMESTAMP] = [answer(lambda _: b" " * 5_000_000)]
    with pytest.raises(SyncError, match=r"timestamp\.json: larger than the limit of 16384 bytes"):
        pull_from(server, device)
    assert active(device) == ("one", 3)


def test_too_little_space_is_an_error_before_large_downloads(device, server):
    with pytest.raises(SyncError, match=r"device: 1000 bytes are free, but release 2 needs \d+"):
        pull_from(server, device, free=1000)
    assert embedder_for(server) not in [path for path, _ in server.requests]
    assert active(device) == ("one", 3)


def test_full_disk_is_one_error_and_does_not_stay_full(device, server):
    without_deliveries(server.folder)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4000, hard))  # no file may grow beyond this
    try:
        with pytest.raises(SyncError, match=r"cannot be made from .*disk"):
            pull_from(server, device)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert not (device / "cache" / "sync").exists()
    assert active(device) == ("one", 3)


def test_t2_older_metadata_is_refused(device, server, tmp_path):
    old = {path: path.read_bytes() for path in (server.folder / "metadata").iterdir()}
    publish_release(tmp_path, "three", 3, 5)
    pull_from(server, device)
    for path, data in old.items():
        path.write_bytes(data)
    with pytest.raises(RolledBackError, match=r"goes back|older than"):
        pull_from(server, device)
    assert active(device) == ("one", 3)


def test_t4_expired_metadata_installs_nothing_and_stops_nothing(device, server):
    with pytest.raises(ExpiredError, match="expired"):
        pull(HttpTransport(server.url, 5.0), device, now=lambda: time_now() + timedelta(days=400))
    assert active(device) == ("one", 3)
    assert pull_from(server, device).sequence == 2


def test_t3_mixed_metadata_is_refused(device, server, tmp_path):
    snapshot = max((server.folder / "metadata").glob("*.snapshot.json"))
    publish_release(tmp_path, "three", 3, 5)
    newer = max((server.folder / "metadata").glob("*.snapshot.json"))
    newer.write_bytes(snapshot.read_bytes())
    with pytest.raises((MetadataError, RolledBackError), match=r"damaged or a mix|goes back"):
        pull_from(server, device)
    assert active(device) == ("one", 3)


def test_bundle_compatible_with_the_old_gallery_is_pulled_with_it(device, server, tmp_path):
    newer = make_bundle(tmp_path / "b3", "three", 9, space_id="b" * 64, compatible=(SPACE,))
    publish_pair(server.folder, newer, None)
    pulled = pull_folder(server.folder, device)
    assert pulled.bundle_id == "three"
    slots.activate(device, prove=trusted)
    assert active(device) == ("three", 4)


def test_gallery_alone_is_pulled_by_its_segment(device, server, tmp_path):
    pull_from(server, device)
    slots.activate(device, prove=trusted)
    publish_pair(server.folder, None, make_gallery(tmp_path / "more", 6))
    server.requests.clear()
    pulled = pull_from(server, device)
    assert (pulled.slot, pulled.bundle_id) == ("b", "two")
    assert len([path for path, _ in server.requests if path.startswith("objects/")]) == 2  # manifest and segment
    slots.activate(device, prove=trusted)
    assert active(device) == ("two", 6)
    assert read_active_pointer(device).release.gallery_sequence == newest(server.folder)[0].gallery_sequence


def test_repository_folder_is_pulled_without_a_server(tmp_path, device):
    transport = open_transport((tmp_path / "repo").as_uri())
    assert isinstance(transport, FolderTransport)
    assert pull(transport, device).bundle_id == "two"
    with pytest.raises(SyncError, match=r"missing/metadata/.*: cannot read"):
        pull(open_transport((tmp_path / "missing").as_uri()), device)
    with pytest.raises(SyncError, match="found scheme 'ftp', expected http, https or file"):
        open_transport("ftp://example/repo")


def test_device_without_a_root_of_trust_is_refused(server, tmp_path):
    with pytest.raises(SyncError, match=r"this device is not enrolled; .*--root FILE"):
        pull(FolderTransport(server.folder), tmp_path / "new")
    assert not server.requests[1:]


def test_root_of_another_repository_is_refused_and_not_kept(server, tmp_path):
    other = json.loads(trusted_root(server.folder))
    other["signed"]["version"] = 9
    with pytest.raises(SyncError):
        pull(FolderTransport(server.folder), tmp_path / "new", json.dumps(other).encode())
    assert pull_folder(server.folder, tmp_path / "new").sequence == 1
    with pytest.raises(SyncError, match="this device has another root of trust"):
        pull(FolderTransport(server.folder), tmp_path / "new", json.dumps(other).encode())


def test_security_floor_is_raised_by_what_is_active_alone(device, server, tmp_path):
    publish_release(tmp_path, "three", 3, 5, demands=Demands(security_floor=3))
    pull_from(server, device)
    assert read_security_floor(device, "demo") == 0
    slots.activate(device, prove=trusted)
    assert pull_from(server, device).serving
    assert read_security_floor(device, "demo") == 3


@pytest.mark.parametrize("image", IMAGES)
def test_power_cut_during_a_pull_keeps_the_active_release(tmp_path, device, image):
    transport = FolderTransport(tmp_path / "repo")
    n = IMAGES.index(image)  # all images together cut at every change
    while True:
        n += len(IMAGES)
        with PowerCut(n, image) as power, suppress(SyncError, BundleError):
            pull(transport, device)
        assert active(device) == ("one", 3)
        if not power.happened:
            break
    assert n > 20
    slots.activate(device, prove=trusted)
    assert active(device) == ("two", 4)


def test_pull_command(tmp_path, capsys):
    repo, device = tmp_path / "repo", tmp_path / "device"
    publish_release(tmp_path, "one", 1, 3)
    command = ["pull", repo.as_uri(), "--state-dir", str(device), "--json"]
    assert main(command) == 1
    assert "not enrolled" in capsys.readouterr().err
    assert main([*command, "--root", str(repo / "metadata/1.root.json")]) == 0
    assert not json.loads(capsys.readouterr().out)["serving"]
    assert read_active_pointer(device) is None
    assert main([*command, "--activate"]) == 1  # its models are not ONNX files
    assert read_active_pointer(device) is None
    assert "cannot load it" in capsys.readouterr().err
    assert main(["pull", "ftp://x", "--state-dir", str(device)]) == 1
    assert capsys.readouterr().err == "edge-sync: ftp://x: found scheme 'ftp', expected http, https or file\n"


def enrolment(repo: Path, **change: str) -> Enrolment:
    root = trusted_root(repo).decode()
    sha256 = hashlib.sha256(root.encode()).hexdigest()
    fields = {"device_id": "d1", "line": "demo", "repository": repo.as_uri(), "root": root, "root_sha256": sha256}
    return Enrolment.model_validate(fields | change)


def test_enrolment_says_where_to_pull_from(tmp_path, capsys):
    repo, device = tmp_path / "repo", tmp_path / "device"
    publish_release(tmp_path, "one", 1, 3)
    enrol(device, enrolment(repo))
    (device / "enrolment.json").write_bytes(b"damaged")  # its copy says it, too
    assert main(["pull", "--state-dir", str(device), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["bundle_id"] == "one"
    (device / "trust/enrolment").write_bytes(b"damaged")
    assert main(["pull", "--state-dir", str(device)]) == 1
    assert "enrol the device again" in capsys.readouterr().err


def test_enrolled_line_counts_not_what_the_repository_says(tmp_path, capsys):
    repo, device = tmp_path / "repo", tmp_path / "device"
    publish_release(tmp_path, "one", 1, 3)
    enrol(device, enrolment(repo, line="other"))
    assert main(["pull", "--state-dir", str(device)]) == 1
    assert "other" in capsys.readouterr().err


def small_demo(folder: Path) -> tuple[Path, Path]:
    """Return the bundle and the gallery of the demo with one embedder, in one form, and two of its probes."""
    tree = demo_manifest()
    model = next(one for one in tree["embedders"] if one["categories"] == ["bottle"])
    model["files"] = {"ort-u8": model["files"]["ort-u8"]}
    probes = [one for one in tree["probes"] if one["category"] == "bottle"][:2]
    tree |= {"embedders": [model], "probes": probes, "runtimes": ["ort-u8"], "scene_probes": []}
    tree |= {"detector": None, "classifier": None, "finder": None}
    (folder / "gallery").mkdir(parents=True)
    shutil.copy(DEMO / "gallery/bottle.sqlite", folder / "gallery")
    write_gallery_index(folder / "gallery", "2026-01-01T00:00:00Z")
    return write_variant(folder / "bundle", tree), folder / "gallery"


def test_pulled_release_is_activated_after_its_probes_pass(tmp_path):
    repo, device = tmp_path / "repo", tmp_path / "device"
    publish_pair(repo, *small_demo(tmp_path / "demo"))
    root = str(repo / "metadata/1.root.json")
    assert main(["pull", repo.as_uri(), "--state-dir", str(device), "--activate", "--root", root]) == 0
    assert read_active_pointer(device).bundle_id == "demo-1"
