"""Downloads over a bad network and to a bad disk. A test's name starts with the fault of the list that it is about."""

from __future__ import annotations

import errno
import hashlib
import itertools
import os
import tempfile
from contextlib import suppress
from datetime import datetime, timedelta, timezone
from email.utils import format_datetime
from pathlib import Path

import pytest

from edge.errors import SyncError
from gallery_sync.formats.fields import ObjectRef, object_path
from gallery_sync.transport import download
from gallery_sync.transport.byte_budget import ByteBudget, BytePolicy, SpentInMemory
from gallery_sync.transport.download import Fetcher, Retry
from gallery_sync.transport.errors import (
    BackOffError,
    BudgetError,
    InterruptedTransferError,
    ReleaseError,
    StorageError,
    TransferError,
)
from gallery_sync.transport.rate_limit import RateLimit
from gallery_sync.transport.repository_files import FolderTransport, HttpTransport, retry_after
from gallery_sync.transport.retry_ledger import FailuresInMemory, RetryLedger
from gallery_sync.transport.time_limits import Deadline
from tests.power_cut import IMAGES, PowerCut
from tests.sync_server import answer, cut_after, healthy, raw, redirect, silent

DATA = bytes(range(256)) * 40  # 10,240 bytes
OK = b"HTTP/1.1 200 OK\r\n"
PAGE = answer(lambda _: b"\xef\xbb\xbf \n<!DOCTYPE html><html><body>Welcome to our guest network</body></html>")
NOON = datetime(2026, 11, 28, 12, tzinfo=timezone(timedelta(hours=1)))


def asked(server, ref: ObjectRef) -> list[str]:
    """The ranges of the requests for an object."""
    return [found for path, found in server.requests if path == object_path(ref.sha256)]


class Pieces:
    """A transport in memory: pieces of a size, and a drop after some bytes of each answer."""

    def __init__(self, data: bytes, piece: int, drops: list[int]) -> None:
        self.base = "memory"
        self.deadline = Deadline()
        self.budget = None
        self.data, self.piece, self.drops = data, piece, drops

    def get(self, _path: str, offset: int):
        return _Answer(self, offset)


class _Answer:
    def __init__(self, transport: Pieces, offset: int) -> None:
        self.transport, self.offset = transport, offset

    def __enter__(self) -> download.Body:
        return download.Body(self.offset, None, self.chunks(), len(self.transport.data) if self.offset else None)

    def __exit__(self, *_: object) -> None:
        pass

    def chunks(self):
        end = len(self.transport.data)
        stop = min(end, self.offset + self.transport.drops.pop(0)) if self.transport.drops else end
        for start in range(self.offset, stop, self.transport.piece):
            yield self.transport.data[start : min(stop, start + self.transport.piece)]
        if stop < end:
            raise InterruptedTransferError("dropped")


# network


def test_n1_drop_at_any_byte_is_resumed_there(fetch, cache):
    data = os.urandom(130)
    ref = ObjectRef(sha256=hashlib.sha256(data).hexdigest(), size=len(data))
    for byte in range(len(data)):
        for piece in (7, 64):
            fetcher = fetch(transport=Pieces(data, piece, [byte, 3]))
            assert fetcher.get_object(ref, "model").read_bytes() == data
            assert fetcher.counts.downloaded_bytes == len(data)
            assert (fetcher.counts.wasted_bytes, fetcher.counts.retries) == (0, 2 if byte + 3 < len(data) else 1)
            (cache / ref.sha256).unlink()


def test_n1_drop_is_resumed_after_a_restart(server, put, fetch):
    ref = put(DATA)
    server.faults[object_path(ref.sha256)] = [cut_after(1000), cut_after(500), healthy]
    with pytest.raises(TransferError, match=r"model: gave up after 1 attempt: found 1000 bytes, expected 10240"):
        fetch(attempts=1).get_object(ref, "model")
    fetcher = fetch()
    assert fetcher.get_object(ref, "model").read_bytes() == DATA
    assert asked(server, ref) == ["", "bytes=1000-", "bytes=1500-"]
    assert fetcher.counts.downloaded_bytes == len(DATA) - 1000
    assert fetcher.counts.resumed_bytes == 1000 + 1500


def test_n2_every_second_request_fails(server, put, fetch, waits):
    objects = [put(bytes([number]) * 1000) for number in range(5)]
    for ref in objects:
        server.faults[object_path(ref.sha256)] = [answer(bytes, 500), healthy]
    fetcher = fetch()
    for ref in objects:
        fetcher.get_object(ref, "model")
    assert fetcher.counts.retries == len(waits) == 5
    assert len(server.requests) == 10


@pytest.mark.parametrize("status", [403, 404, 410])
def test_n3_missing_object_tells_its_status_and_is_asked_for_once(server, put, fetch, status):
    ref = put(DATA)
    server.faults[object_path(ref.sha256)] = [answer(bytes, status)]
    with pytest.raises(TransferError, match=f"the server answered HTTP {status}") as caught:
        fetch().get_object(ref, "model")
    assert caught.value.status == status
    assert len(server.requests) == 1


@pytest.mark.parametrize("path", ["metadata/timestamp.json", "metadata/2.root.json"])
def test_n3_missing_metadata_tells_its_status(server, fetch, path):
    with pytest.raises(TransferError) as caught:
        fetch().get_small(path, 1000)
    assert caught.value.status == 404
    assert len(server.requests) == 1


def test_n4_silent_server_ends_in_an_error(server, put, fetch, waits):
    ref = put(DATA)
    server.faults[object_path(ref.sha256)] = [cut_after(100), silent]
    with pytest.raises(TransferError, match=r"gave up after 4 attempts: .*timed out") as caught:
        fetch(timeout_s=0.05).get_object(ref, "model")
    assert caught.value.status is None
    assert waits == [1.0, 2.0, 4.0]


def test_n5_attempts_end_in_an_error_and_the_next_call_goes_on(server, put, fetch):
    ref = put(DATA)
    server.faults[object_path(ref.sha256)] = [cut_after(100), answer(bytes, 503)]
    with pytest.raises(TransferError, match=r"gave up after 4 attempts: .*HTTP 503") as caught:
        fetch().get_object(ref, "model")
    assert caught.value.status == 503
    assert len(server.requests) == 4
    server.faults.clear()
    assert fetch().get_object(ref, "model").read_bytes() == DATA
    assert asked(server, ref)[-1] == "bytes=100-"


@pytest.mark.parametrize("attempts", [0, -1])
def test_n5_no_attempt_is_an_error(fetch, attempts):
    with pytest.raises(SyncError, match="allow at least 1"):
        fetch(attempts=attempts).get_small("release.json", 1000)


def test_n6_server_that_ignores_ranges_is_read_from_the_start(server, put, fetch):
    ref = put(DATA)
    server.faults[object_path(ref.sha256)] = [cut_after(1000), answer(lambda data: data)]
    fetcher = fetch()
    assert fetcher.get_object(ref, "model").read_bytes() == DATA
    assert (fetcher.counts.wasted_bytes, fetcher.counts.downloaded_bytes) == (1000, 1000 + len(DATA))


NOT_CONTINUED = {
    "another range": answer(lambda data: data[5:], 206, Content_Range="bytes 5-9/10240"),
    "no range": answer(lambda data: data[1000:], 206),
    "no number": answer(lambda data: data[1000:], 206, Content_Range="bytes x-9/10"),
    "another size": answer(lambda data: data[1000:] + b"more", 206, Content_Range="bytes 1000-10243/10244"),
    "not satisfiable": answer(bytes, 416),
}


@pytest.mark.parametrize("name", NOT_CONTINUED)
def test_n6_file_that_is_not_continued_is_requested_whole(server, put, fetch, name):
    ref = put(DATA)
    server.faults[object_path(ref.sha256)] = [cut_after(1000), NOT_CONTINUED[name], healthy]
    fetcher = fetch()
    assert fetcher.get_object(ref, "model").read_bytes() == DATA
    assert asked(server, ref) == ["", "bytes=1000-", ""]


@pytest.mark.parametrize("name", NOT_CONTINUED)
def test_n6_server_that_never_continues_ends_in_an_error(server, put, fetch, name):
    ref = put(DATA)
    server.faults[object_path(ref.sha256)] = [cut_after(1000), NOT_CONTINUED[name]]
    with pytest.raises(SyncError):
        fetch().get_object(ref, "model")
    assert len(asked(server, ref)) <= 4


def test_n6_range_of_a_larger_object_is_wrong_only_once(server, put, fetch):
    ref = put(DATA)
    wrong = answer(lambda data: data[1000:] + b"!!!!", 206, Content_Range="bytes 1000-10243/*")
    server.faults[object_path(ref.sha256)] = [cut_after(1000), wrong, healthy]
    with pytest.raises(ReleaseError, match="the server sent more than the expected 10240 bytes"):
        fetch().get_object(ref, "model")
    assert fetch().get_object(ref, "model").read_bytes() == DATA


def test_n7_compressing_proxy_is_named(server, put, fetch, cache):
    ref = put(DATA)
    server.faults[object_path(ref.sha256)] = [answer(lambda data: data, Content_Encoding="gzip")]
    with pytest.raises(TransferError, match="content encoding 'gzip'; turn compression off"):
        fetch().get_object(ref, "model")
    assert list(cache.iterdir()) == []


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        (PAGE, r"found a web page, expected a file of the repository; a login page"),
        (answer(bytes, 511), r"HTTP 511 Network Authentication Required: a login page"),
        (redirect("http://login.wifi.example/?next={path}"), r"redirects to host 'login.wifi.example'.*login page"),
        (answer(bytes, 204), "HTTP 204"),
    ],
)
def test_n7_login_page_is_named_and_destroys_no_download(server, put, fetch, fault, message):
    ref = put(DATA)
    store = FailuresInMemory()
    ledger = RetryLedger(store, now_s=lambda: 0.0, jitter=lambda: 0.5)
    server.faults[object_path(ref.sha256)] = [cut_after(1000), fault]
    with pytest.raises(SyncError, match=rf"gave up after 4 attempts: .*{message}"):
        fetch(ledger=ledger).get_object(ref, "model")
    assert store.objects == {}  # it is not the server's fault
    server.faults.clear()
    assert fetch(ledger=ledger).get_object(ref, "model").read_bytes() == DATA
    assert asked(server, ref)[-1] == "bytes=1000-"


def test_n8_slow_body_is_given_up_and_the_next_call_goes_on(server, put, fetch):
    ref = put(DATA)
    head = OK + b"Content-Length: 10240\r\n\r\n"
    server.faults[object_path(ref.sha256)] = [raw(head, DATA[:1000], endless=DATA[1000:1001], every_s=0.02)]
    transport = HttpTransport(server.url, 5.0, min_bytes_per_s=100_000, window_s=0.2)
    with pytest.raises(SyncError, match=r"bytes per second, expected at least 100000"):
        fetch(attempts=1, transport=transport).get_object(ref, "model")
    server.faults.clear()
    server.requests.clear()
    fetcher = fetch()
    fetcher.get_object(ref, "model")
    assert fetcher.counts.resumed_bytes + fetcher.counts.wasted_bytes >= 1000


def test_n8_endless_body_is_cut_at_the_signed_size(server, put, fetch, cache):
    ref = put(DATA)
    server.faults[object_path(ref.sha256)] = [raw(OK + b"\r\n", endless=b"x" * 4096)]
    fetcher = fetch()
    with pytest.raises(ReleaseError, match="the server sent more than the expected 10240 bytes"):
        fetcher.get_object(ref, "model")
    assert fetcher.counts.downloaded_bytes <= ref.size + (1 << 17)
    assert list(cache.iterdir()) == []
    server.faults["release.json"] = [raw(OK + b"\r\n", endless=b"x" * 4096)]
    with pytest.raises(SyncError, match="larger than the limit of 1000 bytes"):
        fetcher.get_small("release.json", 1000)


def test_n8_deadline_ends_all_attempts_and_the_next_call_goes_on(server, put, fetch):
    ref = put(DATA)
    server.faults[object_path(ref.sha256)] = [cut_after(1000), silent]
    transport = HttpTransport(server.url, 60.0, deadline=Deadline(0.3))
    with pytest.raises(SyncError, match=r"did not end within 0.3 s; the next one goes on"):
        fetch(attempts=9, transport=transport).get_object(ref, "model")
    server.faults.clear()
    fetch().get_object(ref, "model")
    assert asked(server, ref)[-1] == "bytes=1000-"


def test_n9_wrong_object_is_not_downloaded_for_ever(server, put, fetch):
    ref = put(DATA)
    server.faults[object_path(ref.sha256)] = [answer(lambda data: b"X" + data[1:])]
    clock = [1e9]
    ledger = RetryLedger(FailuresInMemory(), now_s=lambda: clock[0], jitter=lambda: 1.0)
    refused = 0
    for _ in range(3 * 144):  # three days
        clock[0] += 600
        try:
            fetch(ledger=ledger).get_object(ref, "model")
        except BackOffError:
            refused += 1
        except ReleaseError:
            pass
    assert len(server.requests) == 3 * 144 - refused <= 13
    server.faults.clear()
    clock[0] += 86400
    assert fetch(ledger=ledger).get_object(ref, "model").read_bytes() == DATA
    server.requests.clear()


def test_n9_missing_object_is_backed_off_over_restarts(server, put, fetch):
    ref = put(DATA)
    server.faults[object_path(ref.sha256)] = [answer(bytes, 404)]
    store, clock = FailuresInMemory(), [1e9]

    def ledger() -> RetryLedger:
        return RetryLedger(store, now_s=lambda: clock[0], jitter=lambda: 1.0)

    with pytest.raises(TransferError):
        fetch(ledger=ledger()).get_object(ref, "model")
    with pytest.raises(BackOffError, match=r"model: not requested after 1 failures, .*HTTP 404") as caught:
        fetch(ledger=ledger()).get_object(ref, "model")
    assert len(server.requests) == 1
    assert caught.value.again_at.timestamp() == clock[0] + 60
    clock[0] += 60
    server.faults.clear()
    fetch(ledger=ledger()).get_object(ref, "model")
    assert store.objects == {}


def test_n9_delivery_of_no_use_is_not_downloaded_at_every_poll(server, put, fetch, cache):
    ref = put(DATA)
    clock = [1e9]
    ledger = RetryLedger(FailuresInMemory(), now_s=lambda: clock[0], jitter=lambda: 0.0)
    for _ in range(144):  # a day
        clock[0] += 600
        fetcher = fetch(ledger=ledger)
        with suppress(BackOffError):
            fetcher.get_object(ref, "residual")
            fetcher.reject(ref, "it does not make its file")
            assert fetcher.counts.wasted_bytes == len(DATA)
    assert len(server.requests) == 1
    assert list(cache.iterdir()) == []
    with pytest.raises(BackOffError, match=r"given up after 12 failures, .*: it does not make its file"):
        fetcher.get_object(ref, "residual")
    clock[0] += 600
    fetch(ledger=ledger).get_object(ref, "residual")


def test_n9_retry_after_is_kept(server, put, fetch, waits):
    ref = put(DATA)
    path = object_path(ref.sha256)
    store = FailuresInMemory()
    ledger = RetryLedger(store, now_s=lambda: 0.0, jitter=lambda: 0.5)
    server.faults[path] = [answer(bytes, 503, Retry_After="20"), healthy]
    fetch(ledger=ledger).get_object(ref, "model")
    assert waits == [20.0]
    (fetch()._folder / ref.sha256).unlink()
    server.faults[path] = [answer(bytes, 429, Retry_After="7200")]
    server.requests.clear()
    with pytest.raises(TransferError, match=r"gave up after 1 attempt: .*HTTP 429") as caught:
        fetch(ledger=ledger).get_object(ref, "model")
    assert (caught.value.status, caught.value.retry_after_s) == (429, 7200.0)
    assert len(server.requests) == 1
    assert store.objects[ref.sha256].again_at_s == 7200.0


def test_n9_retry_after_is_a_number_or_a_date_and_at_most_a_day():
    now = datetime(2026, 11, 28, tzinfo=timezone.utc)
    date = format_datetime(now + timedelta(minutes=5), usegmt=True)
    assert retry_after(date, now.timestamp()) == 300.0
    assert retry_after("120", 0.0) == 120.0
    assert retry_after("999999999", 0.0) == 86400.0
    assert retry_after(format_datetime(now, usegmt=True), now.timestamp() + 50) == 0.0
    for text in ("", "soon", "-5", "1e9", "9" * 400, "Mon, 99 Foo 99999 00:00:00 GMT"):
        assert retry_after(text, 0.0) is None


def test_n9_byte_budget_stops_in_the_middle_and_goes_on_the_next_day(server, put, fetch):
    data = os.urandom(400_000)
    ref = put(data)
    spent, clock = SpentInMemory(), [NOON]

    def transport() -> HttpTransport:
        budget = ByteBudget(BytePolicy(bytes_per_day=150_000), spent, now=lambda: clock[0])
        return HttpTransport(server.url, budget=budget, rate=RateLimit(40_000, sleep=lambda _: None))

    for day in (29, 30):
        for _ in range(2):  # the second attempt asks for nothing
            with pytest.raises(BudgetError, match="the bytes that a day allows are spent") as caught:
                fetch(transport=transport()).get_object(ref, "model")
        assert caught.value.again_at == datetime(2026, 11, day, tzinfo=NOON.tzinfo)
        clock[0] += timedelta(days=1)
    fetch(transport=transport()).get_object(ref, "model")
    assert len(server.requests) == 3
    assert sum(spent.days.values()) == len(data)
    assert all(count <= 150_000 + 10_000 for count in spent.days.values())  # one piece more at most


def test_n9_urgent_objects_and_documents_are_counted_and_not_refused(server, put, fetch):
    ref = put(DATA)
    spent = SpentInMemory()
    budget = ByteBudget(BytePolicy(bytes_per_day=0), spent, now=lambda: NOON)
    fetcher = fetch(transport=HttpTransport(server.url, budget=budget))
    with pytest.raises(BudgetError):
        fetcher.get_object(ref, "model")
    assert len(server.requests) == 0
    fetcher.get_object(ref, "deletions", urgent=True)
    small = len(fetcher.get_small("release.json", 1000))
    assert spent.days == {"2026-11-28": len(DATA) + small}


def test_n9_folder_costs_no_bytes(server, put, fetch):
    assert fetch(transport=FolderTransport(server.folder)).get_object(put(DATA), "model").read_bytes() == DATA


def test_n11_waits_between_attempts_differ_by_jitter(server):
    server.faults["release.json"] = [answer(bytes, 500)]
    found = []
    for jitter in (0.0, 1.0):
        retry = Retry(8, found.append, lambda jitter=jitter: jitter)
        with pytest.raises(SyncError):
            Fetcher(HttpTransport(server.url), Path(), retry).get_small("release.json", 10)
    assert found == [0.5, 1, 2, 4, 8, 15, 15, 1.5, 3, 6, 12, 24, 45, 45]


# content


def test_part_of_another_object_is_deleted_and_downloaded_again(server, put, fetch, cache):
    ref = put(DATA)
    (cache / f"{ref.sha256}.part").write_bytes(b"?" * 100)
    fetcher = fetch()
    assert fetcher.get_object(ref, "model").read_bytes() == DATA
    assert asked(server, ref) == ["bytes=100-", ""]
    assert fetcher.counts.wasted_bytes == len(DATA)


def test_wrong_object_is_one_error(server, put, fetch, cache):
    ref = put(DATA)
    server.faults[object_path(ref.sha256)] = [answer(lambda data: b"X" + data[1:])]
    with pytest.raises(ReleaseError, match=r"model: found SHA-256 .*, expected") as caught:
        fetch().get_object(ref, "model")
    assert "\n" not in str(caught.value)
    assert list(cache.iterdir()) == []
    with pytest.raises(ReleaseError, match=r"model: found SHA-256 .*, expected"):
        fetch().get_document(ref, "model")


def test_empty_object_is_fetched(put, fetch):
    ref = put(b"")
    assert fetch().get_object(ref, "nothing").read_bytes() == b""


# storage


MIB = 1 << 20


def torn_object(server, put, cache, had: int, torn_from: int) -> tuple[ObjectRef, bytes]:
    """A part whose tail reads as zeros, as after a power cut."""
    data = os.urandom(10 * MIB)
    ref = put(data)
    (cache / f"{ref.sha256}.part").write_bytes(data[:torn_from] + bytes(had - torn_from))
    return ref, data


def test_part_with_a_torn_tail_is_cut_back_to_what_was_flushed(server, put, fetch, cache):
    ref, data = torn_object(server, put, cache, 9 * MIB, 8 * MIB + 5)
    fetcher = fetch()
    assert fetcher.get_object(ref, "model").read_bytes() == data
    assert asked(server, ref) == [f"bytes={9 * MIB}-", f"bytes={8 * MIB}-"]
    assert fetcher.counts.downloaded_bytes == 3 * MIB
    assert fetcher.counts.wasted_bytes == 2 * MIB


def test_part_that_is_torn_before_that_is_deleted_and_does_not_loop(server, put, fetch, cache):
    ref, data = torn_object(server, put, cache, 9 * MIB, 3 * MIB)
    fetcher = fetch()
    assert fetcher.get_object(ref, "model").read_bytes() == data
    assert asked(server, ref) == [f"bytes={9 * MIB}-", f"bytes={8 * MIB}-", ""]


@pytest.mark.parametrize("left", [0, 1, 100, 10_239])
def test_part_that_lost_its_tail_is_resumed_where_it_ends(server, put, fetch, cache, left):
    ref = put(DATA)
    (cache / f"{ref.sha256}.part").write_bytes(DATA[:left])
    fetcher = fetch()
    assert fetcher.get_object(ref, "model").read_bytes() == DATA
    assert fetcher.counts.downloaded_bytes == len(DATA) - left


def test_part_is_flushed_every_4_mib_and_at_an_interruption(fetch, monkeypatch):
    data = os.urandom(18 * MIB)
    ref = ObjectRef(sha256=hashlib.sha256(data).hexdigest(), size=len(data))
    flushed = []
    fsync = os.fsync
    monkeypatch.setattr(os, "fsync", lambda file: (flushed.append(os.fstat(file).st_size), fsync(file))[1])
    with pytest.raises(SyncError):
        fetch(attempts=1, transport=Pieces(data, 1 << 16, [10 * MIB + 7])).get_object(ref, "model")
    assert [size // MIB for size in flushed] == [4, 8, 10]
    assert flushed[-1] == 10 * MIB + 7


@pytest.mark.parametrize("image", IMAGES)
def test_power_cut_at_any_change_and_the_next_call_is_whole(fetch, cache, image):
    ref = ObjectRef(sha256=hashlib.sha256(DATA).hexdigest(), size=len(DATA))
    for number in itertools.count(1):
        with PowerCut(number, image) as power, suppress(StorageError):
            fetch(transport=Pieces(DATA, 1024, [3000, 5000])).get_object(ref, "model")
        fetcher = fetch(transport=Pieces(DATA, 1024, []))
        assert fetcher.get_object(ref, "model").read_bytes() == DATA
        assert fetcher.counts.downloaded_bytes <= 2 * len(DATA)
        assert [path.name for path in cache.iterdir()] == [ref.sha256]
        (cache / ref.sha256).unlink()
        if not power.happened:
            break
    assert number > 5


class FailingFile:
    """A file whose n-th write fails."""

    def __init__(self, file, number: int, code: int) -> None:
        self.file, self.left, self.code = file, number, code

    def __enter__(self):
        return self

    def __exit__(self, *_: object) -> None:
        self.file.close()

    def __getattr__(self, name: str):
        return getattr(self.file, name)

    def write(self, data: bytes) -> None:
        self.left -= 1
        if self.left < 0:
            raise OSError(self.code, os.strerror(self.code))
        self.file.write(data)


def test_s1_full_disk_at_any_write_keeps_what_is_there(fetch, monkeypatch, cache):
    ref = ObjectRef(sha256=hashlib.sha256(DATA).hexdigest(), size=len(DATA))
    opened = download.open_part
    for number in range(10):
        monkeypatch.setattr(
            download, "open_part", lambda path, had, number=number: FailingFile(opened(path, had), number, errno.ENOSPC)
        )
        with pytest.raises(StorageError, match="model: cannot store 10240 bytes: No space left on device"):
            fetch(transport=Pieces(DATA, 1024, [])).get_object(ref, "model")
        assert (cache / f"{ref.sha256}.part").read_bytes() == DATA[: number * 1024]
        monkeypatch.setattr(download, "open_part", opened)
        fetcher = fetch(transport=Pieces(DATA, 1024, []))
        assert fetcher.get_object(ref, "model").read_bytes() == DATA  # once the disk has space
        assert fetcher.counts.downloaded_bytes == len(DATA) - number * 1024
        (cache / ref.sha256).unlink()


def test_s1_full_disk_is_known_before_the_first_byte(server, put, fetch):
    ref = put(DATA)
    with pytest.raises(StorageError, match=r"model: needs 10240 bytes, and 10239 are free in .*; free some space"):
        fetch(space=lambda _: (10_239, 5)).get_object(ref, "model")
    assert server.requests == []
    fetch(space=lambda _: (10_240, 5)).get_object(ref, "model")


def test_s1_full_disk_when_the_object_gets_its_name(put, fetch, monkeypatch):
    ref = put(DATA)

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(download, "replace_file", full)
    with pytest.raises(StorageError, match="No space left on device"):
        fetch().get_object(ref, "model")


def test_s2_read_only_file_system_is_one_error(put, fetch, monkeypatch):
    def read_only(*_: object):
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr(download, "open_part", read_only)
    with pytest.raises(StorageError, match="model: cannot store 10240 bytes: Read-only file system"):
        fetch().get_object(put(DATA), "model")


def test_s4_no_free_inode_is_known_before_the_first_byte(server, put, fetch):
    with pytest.raises(StorageError, match="needs a file, and no inode is free"):
        fetch(space=lambda _: (1 << 40, 0)).get_object(put(DATA), "model")
    assert server.requests == []
    fetch(space=lambda _: (1 << 40, None)).get_object(put(DATA), "model")  # a file system without inodes


def test_s7_nothing_is_written_to_the_temporary_folder(put, fetch, monkeypatch, tmp_path):
    def refuse(*_: object, **__: object):
        raise AssertionError("a temporary file")

    monkeypatch.setenv("TMPDIR", str(tmp_path / "missing"))
    for name in ("mkstemp", "mkdtemp", "TemporaryFile", "NamedTemporaryFile", "SpooledTemporaryFile", "gettempdir"):
        monkeypatch.setattr(tempfile, name, refuse)
    fetch().get_object(put(DATA), "model")


# rate


def test_rate_limit_holds_back_a_body(server, put, fetch):
    ref = put(os.urandom(100_000))
    slept = []
    rate = RateLimit(20_000, clock=lambda: sum(slept), sleep=slept.append)
    fetch(transport=HttpTransport(server.url, rate=rate)).get_object(ref, "model")
    assert 4.7 <= sum(slept) <= 5.0
    assert max(slept) <= 0.5
