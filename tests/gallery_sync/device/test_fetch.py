"""Fetching: the fewest bytes first, each fallback counted, disk and memory asked before, and nothing done twice."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from edge.bundle import slots
from edge.bundle.layout import gallery_folder, slot_folder
from edge.errors import SyncError
from edge.gallery.generation import read_gallery, write_gallery_index
from edge.gallery.store import read_category
from edge.gallery.writer import GalleryWriter
from edge.telemetry.counters import Counters
from gallery_sync.device.deliveries import Tools, Way, get_file, ways
from gallery_sync.device.fetch import Options, cache_folder, fetch
from gallery_sync.device.galleries import Cap
from gallery_sync.device.pull import known, pull
from gallery_sync.device.resources import Resources, available_memory, check_resources, gallery_memory
from gallery_sync.device.source import Source, open_source
from gallery_sync.device.stage import stage
from gallery_sync.device.wanted import RefusedError, Wanted, read_wanted
from gallery_sync.formats.documents import Delivery
from gallery_sync.formats.fields import ObjectRef, object_path
from gallery_sync.repository.publish import publish
from gallery_sync.transport.byte_budget import ByteBudget, BytePolicy, SpentInMemory
from gallery_sync.transport.download import Retry
from gallery_sync.transport.errors import BackOffError, BudgetError, DeliveryError, ReleaseError, TransferError
from gallery_sync.transport.repository_files import FolderTransport, HttpTransport
from gallery_sync.transport.retry_ledger import FailuresInMemory, RetryLedger
from tests.hostile_releases import Forge
from tests.store_samples import HEADS, SPACE, make_bundle, make_gallery, trusted
from tests.sync_samples import active, embedder_for, keys_of, newest, publish_release, pull_folder, time_now
from tests.sync_server import answer

ONCE = Retry(attempts=1, sleep=lambda _: None, jitter=lambda: 0.5)
FILE = ObjectRef(sha256="f" * 64, size=1000)


def opened(server, device: Path) -> tuple[Source, Wanted]:
    source = open_source(HttpTransport(server.url, 5.0), device, retry=ONCE)
    source.client.refresh()
    return source, read_wanted(source.client, source.objects, known(device, "demo"))


def objects_of(server) -> list[str]:
    return [path for path, _ in server.requests if path.startswith("objects/")]


def items(device: Path, generation: str) -> list[str]:
    gallery = read_gallery(gallery_folder(device, generation))
    entry = gallery.categories["tyre"]
    return sorted(read_category(gallery.path("tyre"), entry.space_id, entry.dim, entry).item_ids)


# deliveries


def ref(name: str, size: int) -> ObjectRef:
    return ObjectRef(sha256=name * 64, size=size)


def delivery(name: str, size: int, base: str | None = None) -> Delivery:
    method = "residual" if base else "zstd"
    return Delivery(file=FILE.sha256, method=method, base=base and base * 64, object=ref(name, size))


@pytest.mark.parametrize(
    ("deliveries", "methods"),
    [
        ([], ["whole"]),
        ([delivery("1", 500), delivery("2", 100, "b")], ["residual", "zstd", "whole"]),
        ([delivery("1", 50), delivery("2", 100, "b")], ["zstd", "residual", "whole"]),
        ([delivery("2", 100, "c")], ["whole"]),  # its base is not here
        ([delivery("1", 1000), delivery("2", 9000, "b")], ["whole"]),  # not smaller than the file
        ([delivery("1", 500).model_copy(update={"file": "0" * 64})], ["whole"]),
    ],
)
def test_ways_begin_with_the_fewest_bytes(deliveries, methods, tmp_path):
    found = ways(FILE, deliveries, {"b" * 64: tmp_path / "base"}, tmp_path)
    assert [way.method for way in found] == methods


def test_way_that_was_begun_counts_only_what_is_left(tmp_path):
    (tmp_path / f"{'1' * 64}.part").write_bytes(b"x" * 450)
    found = ways(FILE, [delivery("1", 500), delivery("2", 100, "b")], {"b" * 64: tmp_path}, tmp_path)
    assert [way.method for way in found] == ["zstd", "residual", "whole"]


class FakeObjects:
    """Gives files of a folder, and notes what was asked for."""

    def __init__(self, folder: Path, **errors: Exception) -> None:
        self.folder, self.errors, self.asked, self.rejected = folder, errors, [], []

    def get_object(self, wanted: ObjectRef, _name: str, *, urgent: bool = False) -> Path:
        assert not urgent
        self.asked.append(wanted.sha256[0])
        if error := self.errors.get(f"of_{wanted.sha256[0]}"):
            raise error
        path = self.folder / wanted.sha256
        path.write_bytes(b"x")
        return path

    def reject(self, wanted: ObjectRef, _reason: str) -> None:
        self.rejected.append(wanted.sha256[0])
        (self.folder / wanted.sha256).unlink(missing_ok=True)


FAILURES = {
    "damaged": DeliveryError("damaged"),
    "wrong object": ReleaseError("found another SHA-256"),
    "missing": TransferError("HTTP 404", 404),
    "missing before": BackOffError("not now", time_now(), given_up=True),
}


@pytest.mark.parametrize("kind", FAILURES)
def test_delivery_that_fails_is_counted_and_the_next_way_is_used(kind, tmp_path):
    objects, counts = FakeObjects(tmp_path, of_2=FAILURES[kind]), Counters()
    tools = Tools(objects, lambda *_: None, counts, lambda _: True)
    choices = [Way("residual", ref("2", 100), tmp_path), Way("whole", FILE)]
    assert get_file("model", FILE, choices, tmp_path, tools) == tmp_path / FILE.sha256
    assert objects.asked == ["2", "f"]
    assert counts.snapshot() == {
        'delivery_fallbacks{method="residual"}': 1,
        'files_fetched{method="whole"}': 1,
    }


def test_network_that_fails_is_no_reason_to_fetch_more_bytes(tmp_path):
    objects = FakeObjects(tmp_path, of_2=TransferError("HTTP 503", 503))
    tools = Tools(objects, lambda *_: None, Counters(), lambda _: True)
    with pytest.raises(TransferError, match="503"):
        get_file("model", FILE, [Way("zstd", ref("2", 100)), Way("whole", FILE)], tmp_path, tools)
    assert objects.asked == ["2"]


def test_whole_file_is_fetched_only_where_the_byte_policy_allows(tmp_path):
    objects = FakeObjects(tmp_path, of_2=DeliveryError("damaged"))
    tools = Tools(objects, lambda *_: None, Counters(), lambda size: size < 1000)
    with pytest.raises(BudgetError, match="byte policy does not allow the whole file of 1000 bytes now"):
        get_file("model", FILE, [Way("zstd", ref("2", 100)), Way("whole", FILE)], tmp_path, tools)
    assert objects.asked == ["2"]


def test_n10_every_way_after_one_that_failed_needs_the_byte_policy(tmp_path):
    objects = FakeObjects(tmp_path, of_2=DeliveryError("damaged"))
    tools = Tools(objects, lambda *_: None, Counters(), lambda _: False)
    choices = [Way("residual", ref("2", 100), tmp_path), Way("zstd", ref("3", 500)), Way("whole", FILE)]
    with pytest.raises(BudgetError, match="byte policy does not allow the zstd delivery of 500 bytes now"):
        get_file("model", FILE, choices, tmp_path, tools)
    assert objects.asked == ["2"]


def test_delivery_that_makes_another_file_is_rejected(tmp_path):
    def damaged(*_: object) -> None:
        raise DeliveryError("makes another file")

    objects = FakeObjects(tmp_path)
    choices = [Way("zstd", ref("2", 100)), Way("whole", FILE)]
    get_file("model", FILE, choices, tmp_path, Tools(objects, damaged, Counters(), lambda _: True))
    assert (objects.asked, objects.rejected) == (["2", "f"], ["2"])


def test_delivery_is_removed_once_its_file_is_made(tmp_path):
    def make(_delivery: Path, _base: Path | None, out: Path, _size: int, _sha256: str) -> None:
        out.write_bytes(b"made")

    tools = Tools(FakeObjects(tmp_path), make, Counters(), lambda _: True)
    get_file("model", FILE, [Way("zstd", ref("2", 100)), Way("whole", FILE)], tmp_path, tools)
    assert [path.name for path in tmp_path.iterdir()] == [FILE.sha256]


# whole releases


def test_bundle_file_arrives_by_a_smaller_delivery(device, server):
    source, wanted = opened(server, device)
    counts = Counters()
    fetch(wanted, source.objects, device, Options(counts=counts))
    assert embedder_for(server) not in objects_of(server)
    assert counts.total("files_fetched", method="zstd") + counts.total("files_fetched", method="residual") == 1
    assert counts.total("stores_made", way="segments") == 1


def test_damaged_delivery_falls_back_to_the_whole_file(device, server):
    for one in newest(server.folder)[1].deliveries:
        server.faults[object_path(one.object.sha256)] = [answer(lambda data: bytes(len(data)))]
    source, wanted = opened(server, device)
    counts = Counters()
    fetched = fetch(wanted, source.objects, device, Options(counts=counts))
    assert counts.total("delivery_fallbacks") >= 1
    assert counts.total("files_fetched", method="whole") == 1
    assert stage(fetched, device).pointer.bundle_id == "two"


def add_bad_residual(repo: Path) -> str:
    """Sign a residual of the newest embedder that is smaller than its other deliveries, and none; return its path."""
    deliveries = [one.model_dump() for one in newest(repo)[1].deliveries if one.method == "zstd"]
    bundle = json.loads((repo.parent / "one/bundle.json").read_text())
    (base,) = [file["sha256"] for file in bundle["files"] if file["path"] == "models/tyre.onnx"]
    forge = Forge(repo)
    bad = forge.put(b"no residual")
    deliveries.append({"file": deliveries[-1]["file"], "method": "residual", "base": base, "object": bad})
    forge.head["deliveries"] = deliveries
    forge.sign()
    return object_path(bad["sha256"])


def test_n10_bad_residual_on_a_metered_network_is_no_larger_download(device, server):
    bad = add_bad_residual(server.folder)
    ledger = RetryLedger(FailuresInMemory(), now_s=lambda: 1000.0, jitter=lambda: 0.5)

    def attempt(metered: str, counts: Counters) -> list[str]:
        """Fetch as an agent does; return which objects were asked for."""
        budget = ByteBudget(BytePolicy(metered=metered), SpentInMemory(), now=time_now)
        source = open_source(HttpTransport(server.url, 5.0, budget=budget), device, retry=ONCE, ledger=ledger)
        source.client.refresh()
        wanted = read_wanted(source.client, source.objects, known(device, "demo"))
        server.requests.clear()
        options = Options(counts=counts, may_fetch_whole=budget.may_fetch_whole)
        if metered == "no":
            stage(fetch(wanted, source.objects, device, options), device)
        else:
            with pytest.raises(BudgetError, match=r"residual delivery failed: .* policy does not allow the zstd"):
                fetch(wanted, source.objects, device, options)
        return objects_of(server)

    counts = Counters()
    assert attempt("yes", counts)[-1] == bad
    assert attempt("yes", counts) == []  # nothing that arrived is asked for again, nor the residual
    assert counts.total("delivery_fallbacks", method="residual") == 2
    assert embedder_for(server) not in attempt("no", counts)
    assert counts.total("files_fetched", method="zstd") == 1
    assert json.loads((device / "staged").read_text())["bundle_id"] == "two"


def break_segment(server) -> None:
    """Let the newest segment be missing."""
    forge = Forge(server.folder)
    (server.folder / object_path(forge.space["segments"][-1]["object"]["sha256"])).unlink()


def add_base(server, tmp_path: Path) -> None:
    """Sign a base of the newest state, beside the segment that leads there."""
    pull_folder(server.folder, tmp_path / "other")
    slots.activate(tmp_path / "other", prove=trusted)
    gallery = slots.read_active(tmp_path / "other")[1]
    forge = Forge(server.folder)
    segment, entry = forge.space["segments"][-1], gallery.categories["tyre"]
    forge.space["bases"].append(
        {
            "sequence": segment["sequence"],
            "object": forge.put(gallery.path("tyre").read_bytes()),
            "live_root": segment["live_root"],
            "items": entry.items,
            "vectors": entry.vectors,
        }
    )
    forge.sign()


def test_g2_missing_segment_falls_back_to_the_base(device, server, tmp_path):
    add_base(server, tmp_path)
    break_segment(server)
    source, wanted = opened(server, device)
    counts = Counters()
    fetched = fetch(wanted, source.objects, device, Options(counts=counts))
    assert counts.total("gallery_fallbacks", way="segments") == 1
    assert counts.total("stores_made", way="base") == 1
    assert items(device, stage(fetched, device).pointer.gallery) == ["i0", "i1", "i2", "i3"]


def test_g2_base_in_place_of_segments_needs_the_byte_policy(device, server, tmp_path):
    add_base(server, tmp_path)
    break_segment(server)
    source, wanted = opened(server, device)
    with pytest.raises(BudgetError, match="byte policy does not allow a base of"):
        fetch(wanted, source.objects, device, Options(may_fetch_whole=lambda _: False))


def test_g3_damaged_newest_base_falls_back_to_an_older_one(server, device, tmp_path):
    add_base(server, tmp_path)
    forge = Forge(server.folder)
    damaged = forge.space["bases"][-1]["object"]
    (server.folder / object_path(damaged["sha256"])).write_bytes(bytes(damaged["size"]))
    shutil.rmtree(device / "gallery")
    source, wanted = opened(server, device)
    counts = Counters()
    fetched = fetch(wanted, source.objects, device, Options(counts=counts))
    assert counts.total("gallery_fallbacks", way="base") == 1
    assert counts.total("stores_made", way="older base") == 1
    assert items(device, stage(fetched, device).pointer.gallery) == ["i0", "i1", "i2", "i3"]


def test_g4_damaged_local_store_is_not_the_begin_of_a_segment(device, server):
    active_gallery = slots.read_active(device)[1]
    store = active_gallery.path("tyre")
    store.chmod(0o644)
    store.write_bytes(store.read_bytes()[:-1] + b"?")
    source, wanted = opened(server, device)
    counts = Counters()
    fetched = fetch(wanted, source.objects, device, Options(counts=counts))
    assert counts.total("gallery_fallbacks", way="segments") == 1
    assert items(device, stage(fetched, device).pointer.gallery) == ["i0", "i1", "i2", "i3"]


def test_store_of_another_history_is_replaced_by_a_base(device, server, tmp_path):
    """The device holds a state that the signed log says had another root: a fork, or a repository made anew."""
    add_base(server, tmp_path)
    forge = Forge(server.folder)
    forge.space["bases"][0]["live_root"] = "1" * 64
    forge.sign()
    source, wanted = opened(server, device)
    counts = Counters()
    fetched = fetch(wanted, source.objects, device, Options(counts=counts))
    assert counts.total("gallery_fallbacks", way="segments") == 1
    assert counts.total("stores_made", way="base") == 1
    assert items(device, stage(fetched, device).pointer.gallery) == ["i0", "i1", "i2", "i3"]


def test_fetch_that_is_repeated_downloads_nothing(device, server):
    source, wanted = opened(server, device)
    first = fetch(wanted, source.objects, device)
    server.requests.clear()
    second = fetch(wanted, source.objects, device)
    assert server.requests == []
    assert (second.gallery.generation, second.bundle.folder) == (first.gallery.generation, first.bundle.folder)
    assert stage(second, device).pointer.bundle_id == "two"


def test_fetch_goes_on_after_a_restart_without_the_network(device, server):
    source, wanted = opened(server, device)
    fetch(wanted, source.objects, device)

    class NoNetwork:
        def get_object(self, wanted: ObjectRef, _name: str, *, urgent: bool = False) -> Path:
            path = cache_folder(device) / wanted.sha256
            assert path.is_file(), "asked for the network"
            assert not urgent
            return path

    assert stage(fetch(wanted, NoNetwork(), device), device).pointer.bundle_id == "two"


def test_downloads_of_another_release_are_removed(device, server):
    cache = cache_folder(device)
    cache.mkdir(parents=True)
    for name in ("0" * 64, f"{'1' * 64}.part", "junk"):
        (cache / name).write_bytes(b"x")
    source, wanted = opened(server, device)
    fetch(wanted, source.objects, device)
    assert not {path.name for path in cache.iterdir()} & {"0" * 64, f"{'1' * 64}.part", "junk"}


def test_nothing_is_made_in_the_folder_of_temporary_files(device, server, tmp_path, monkeypatch):
    empty = tmp_path / "temporary"
    empty.mkdir(mode=0o500)
    monkeypatch.setattr("tempfile.tempdir", str(empty))
    source, wanted = opened(server, device)
    stage(fetch(wanted, source.objects, device), device)
    assert list(empty.iterdir()) == []


def test_too_little_memory_is_an_error_before_downloads(device, server):
    source, wanted = opened(server, device)
    server.requests.clear()
    with pytest.raises(SyncError, match=r"release 2 needs \d+ bytes of memory .* and 1000 are available"):
        fetch(wanted, source.objects, device, Options(Resources(memory_bytes=lambda: 1000)))
    assert server.requests == []


def test_unknown_memory_is_no_error(device, server):
    source, wanted = opened(server, device)
    fetch(wanted, source.objects, device, Options(Resources(memory_bytes=lambda: None)))


def test_memory_of_a_gallery_is_that_of_its_vectors():
    assert 20_000 * 256 < gallery_memory(20_000, 20_000, 256) < 20_000 * 1000
    check_resources("release 1", Path(), Resources(lambda _: 0, lambda: 0), disk=0, memory=0)


def test_available_memory_is_read(tmp_path):
    assert available_memory() > 0
    (tmp_path / "meminfo").write_text("MemTotal: 8 kB\nMemAvailable:    12 kB\n")
    assert available_memory(tmp_path / "meminfo") == 12 * 1024
    (tmp_path / "meminfo").write_text("MemTotal: 8 kB\n")
    assert available_memory(tmp_path / "meminfo") is None
    assert available_memory(tmp_path / "nothing") is None


def test_installed_files_are_read_only_and_no_links(device, server):
    source, wanted = opened(server, device)
    staged = stage(fetch(wanted, source.objects, device), device)
    pointer = staged.pointer
    for folder in (slot_folder(device, pointer.slot), gallery_folder(device, pointer.gallery)):
        for path in folder.rglob("*"):
            if path.is_file():
                assert path.stat().st_nlink == 1
                assert path.stat().st_mode & 0o222 == 0
    assert active(device) == ("one", 3)


# the cap on changes


def large(tmp_path: Path, first: int, second: range) -> tuple[Path, Path]:
    repo, device = tmp_path / "large/repo", tmp_path / "large/device"
    publish_release(tmp_path / "large", "one", 1, first)
    pull_folder(repo, device)
    slots.activate(device, prove=trusted)
    whole = make_gallery(tmp_path / "large/next", second.stop)
    if second.start:
        store = tmp_path / "large/base.sqlite"
        shutil.move(whole / "tyre.sqlite", store)
        with GalleryWriter(whole, "tyre", SPACE, HEADS, base=store) as writer:
            for number in range(second.start):
                writer.delete(f"i{number}")
        write_gallery_index(whole, "2026-01-01T00:00:00Z")
    publish(repo, keys_of(repo), time_now(), gallery_folder=whole)
    return repo, device


def test_t6_gallery_that_loses_most_items_at_once_is_refused(tmp_path):
    repo, device = large(tmp_path, 100, range(60, 100))
    with pytest.raises(RefusedError, match="60 of 100 items would be deleted or changed") as caught:
        pull_folder(repo, device)
    assert caught.value.reason == "change"
    assert active(device) == ("one", 100)
    assert pull(FolderTransport(repo), device, options=Options(cap=Cap(share=0.7))).gallery_sequence == 2


def test_gallery_that_loses_fewer_items_is_taken(tmp_path):
    repo, device = large(tmp_path, 100, range(40, 100))
    assert len(items(device, pull_folder(repo, device).gallery)) == 60


def test_gallery_that_only_grows_is_taken(tmp_path):
    repo, device = large(tmp_path, 100, range(300))
    assert len(items(device, pull_folder(repo, device).gallery)) == 300


def test_t6_base_that_replaces_most_items_is_refused(tmp_path):
    repo, device = large(tmp_path, 100, range(60, 100))
    forge = Forge(repo)
    state = forge.space["segments"][-1]
    pull(FolderTransport(repo), tmp_path / "new", (repo / "metadata/1.root.json").read_bytes())
    slots.activate(tmp_path / "new", prove=trusted)
    store = slots.read_active(tmp_path / "new")[1].path("tyre").read_bytes()
    forge.space["bases"] = [
        {
            **{key: state[key] for key in ("sequence", "live_root")},
            "object": forge.put(store),
            "items": 40,
            "vectors": 80,
        }
    ]
    forge.space["segments"] = []
    forge.sign()
    with pytest.raises(RefusedError, match="60 of 100 items would be deleted or changed"):
        pull_folder(repo, device)


@pytest.mark.parametrize(("items_before", "changed", "allowed"), [(99, 99, True), (100, 50, True), (100, 51, False)])
def test_cap_begins_at_a_hundred_items(items_before, changed, allowed):
    assert Cap().allows(items_before, changed) == allowed


def test_new_embedding_space_counts_only_items_that_are_gone(tmp_path):
    repo, device = tmp_path / "repo", tmp_path / "device"
    publish_release(tmp_path, "one", 1, 100)
    pull_folder(repo, device)
    slots.activate(device, prove=trusted)
    newer = make_bundle(tmp_path / "b", "two", 2, space_id="b" * 64)
    publish(
        *(repo, keys_of(repo), time_now()),
        bundle_folder=newer,
        gallery_folder=make_gallery(tmp_path / "embedded", 100, space_id="b" * 64),
    )
    pulled = pull_folder(repo, device)
    assert len(items(device, pulled.gallery)) == 100
    assert json.loads((device / "staged").read_text())["bundle_id"] == "two"
