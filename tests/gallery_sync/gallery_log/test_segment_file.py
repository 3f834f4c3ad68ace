"""Segments: one form, and any damage is one clear error."""

from __future__ import annotations

import struct
import zlib
from contextlib import suppress

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge.errors import SyncError
from edge.gallery.store import quantise
from gallery_sync.gallery_log import segment_file
from gallery_sync.gallery_log.records import Delete, Upsert, encode
from gallery_sync.gallery_log.segment_file import read_segment, write_segment
from tests.gallery_sync.gallery_log.log_samples import DIM, delete, upsert
from tests.store_samples import SPACE, unit_rows

RECORDS = [upsert("b", metadata='{"sku": 7}', silhouettes=b"\1" * 1024), upsert("a", thumbnail=None), *delete("gone")]
texts = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), min_size=1, max_size=20)


def framed(*records: bytes, space: str = SPACE, dim: int = DIM, version: int = 1) -> bytes:
    """A segment with right checksums around any records."""
    header = struct.pack("<6sH32sII", b"FSGSEG", version, bytes.fromhex(space), dim, len(records))
    parts = [header, struct.pack("<I", zlib.crc32(header))]
    for record in records:
        parts += [record, struct.pack("<I", zlib.crc32(record))]
    return b"".join(parts)


def record(kind: bytes, body: bytes) -> bytes:
    return kind + struct.pack("<I", len(body)) + body


def test_segment_keeps_its_records_in_order_of_id():
    found = read_segment(write_segment(RECORDS, SPACE, DIM))
    assert (found.space_id, found.dim, found.upserts, found.deletes) == (SPACE, DIM, 2, 1)
    assert found.records == (RECORDS[1], RECORDS[0], RECORDS[2])


def test_same_records_in_any_order_have_the_same_bytes():
    assert write_segment(RECORDS, SPACE, DIM) == write_segment(reversed(RECORDS), SPACE, DIM)


def test_empty_segment():
    assert read_segment(write_segment([], SPACE, DIM)).records == ()


def test_overhead_of_a_record_is_a_few_bytes():
    one = upsert("a")
    size = len(write_segment([one], SPACE, DIM)) - len(write_segment([], SPACE, DIM))
    content = one.vectors_i8.nbytes + one.scales.nbytes + len(one.thumbnail or b"") + len("aItem a{}")
    assert size - content == 29
    assert len(write_segment(delete("0123456789"), SPACE, DIM)) - len(write_segment([], SPACE, DIM)) == 19


@given(st.lists(st.tuples(texts, texts, st.booleans(), st.integers(1, 3)), max_size=6, unique_by=lambda one: one[0]))
def test_any_records_are_read_as_they_were_written(drawn):
    records = []
    for item_id, label, is_deleted, count in drawn:
        vectors, scales = quantise(unit_rows(count, DIM, count))
        records.append(Delete(item_id) if is_deleted else Upsert(item_id, label, "{}", None, None, vectors, scales))
    data = write_segment(records, SPACE, DIM)
    found = read_segment(data)
    assert list(found.records) == sorted(records, key=lambda one: one.item_id)
    assert write_segment(found.records, SPACE, DIM) == data


@given(st.binary(max_size=300))
def test_any_bytes_are_refused_or_read(data):
    with pytest.raises(SyncError, match=r"^segment: damaged segment: [^\n]+$"):
        read_segment(data)


@given(st.binary(max_size=120), st.sampled_from([b"U", b"D", b"X"]))
def test_any_body_with_a_right_checksum_is_refused_or_read(body, kind):
    data = framed(record(kind, body))
    with suppress(SyncError):
        assert write_segment(read_segment(data).records, SPACE, DIM) == data


@given(st.data())
def test_damage_anywhere_is_found(data):
    whole = bytearray(write_segment(RECORDS, SPACE, DIM))
    whole[data.draw(st.integers(0, len(whole) - 1))] ^= data.draw(st.integers(1, 255))
    with pytest.raises(SyncError):
        read_segment(bytes(whole))


def test_segment_that_ends_early_is_refused():
    whole = write_segment(RECORDS, SPACE, DIM)
    for end in range(len(whole)):
        with pytest.raises(SyncError):
            read_segment(whole[:end])


def body(**changed: object) -> bytes:
    return encode(upsert("a", **changed))


def test_g5_dim_bomb_is_refused():
    """A header of a vector length that would need much memory; and a count of vectors that are not there."""
    with pytest.raises(SyncError, match="vectors of 4294967295 numbers"):
        read_segment(framed(record(b"U", body()), dim=2**32 - 1))
    with pytest.raises(SyncError, match="vectors of 0 numbers"):
        read_segment(framed(dim=0))
    start = body()[: -len(upsert("a").vectors_i8.tobytes()) - 8 - 4]
    with pytest.raises(SyncError, match="expected 4294967295 vectors"):
        read_segment(framed(record(b"U", start + struct.pack("<I", 2**32 - 1) + b"x" * 32)))


@pytest.mark.parametrize("scale", [np.nan, np.inf, -np.inf, 0.0, -1.0, 3e38])
def test_g5_scale_that_is_no_length_is_refused(scale):
    with pytest.raises(SyncError, match="vector of length"):
        read_segment(framed(record(b"U", body(scales=np.array([scale, 1.0], np.float32)))))


@pytest.mark.parametrize(
    ("changed", "wrong"),
    [
        ({"item_id": ""}, "the id is empty"),
        ({"item_id": "x" * 1025}, "1025 characters"),
        ({"item_id": "a\0"}, "NUL"),
        ({"label": "x" * 1025}, "1025 characters"),
        ({"metadata": "[]"}, "expected an object"),
        ({"metadata": '{"a": 1, "a": 2}'}, "twice"),
        ({"metadata": '{"a": NaN}'}, "finite"),
        ({"metadata": '{"negative": 1}'}, "true or false"),
        ({"metadata": '{"a": "' + "x" * 70_000 + '"}'}, "65536 at most"),
        ({"thumbnail": b"GIF89a"}, "neither JPEG nor PNG"),
        ({"silhouettes": b"\1" * 511}, "silhouettes"),
        ({"vectors_i8": np.zeros((0, DIM), np.int8), "scales": np.zeros(0, np.float32)}, "n >= 1"),
    ],
)
def test_item_that_breaks_a_limit_is_neither_written_nor_read(changed, wrong):
    one = upsert(**{"item_id": "a", **changed})
    with pytest.raises(SyncError, match=wrong):
        write_segment([one], SPACE, DIM)
    with pytest.raises(SyncError, match=f"{wrong}|found a part of"):
        read_segment(framed(record(b"U", encode(one))))


def test_text_that_is_not_utf8_is_refused():
    with pytest.raises(SyncError, match="not UTF-8"):
        read_segment(framed(record(b"D", b"\xff\xfe")))


def test_g2_change_and_tombstone_of_one_id_in_a_segment_are_refused():
    with pytest.raises(SyncError, match="changes twice"):
        write_segment([upsert("a"), Delete("a")], SPACE, DIM)
    for records in [(b"U", body()), (b"D", b"a")], [(b"D", b"a"), (b"D", b"a")], [(b"D", b"b"), (b"D", b"a")]:
        with pytest.raises(SyncError, match="not in order, or one is there twice"):
            read_segment(framed(*(record(kind, one) for kind, one in records)))


def test_bytes_after_the_end_are_refused():
    with pytest.raises(SyncError, match="3 bytes after the last record"):
        read_segment(write_segment(RECORDS, SPACE, DIM) + b"abc")
    with pytest.raises(SyncError, match="bytes of vectors"):
        read_segment(framed(record(b"U", body() + b"abc")))


def test_later_format_says_what_to_do():
    with pytest.raises(SyncError, match="found format 2, expected 1; update finesight"):
        read_segment(framed(version=2))


def test_number_of_records_is_not_believed():
    header = struct.pack("<6sH32sII", b"FSGSEG", 1, bytes.fromhex(SPACE), DIM, 2**32 - 1)
    with pytest.raises(SyncError, match="4294967295 records"):
        read_segment(header + struct.pack("<I", zlib.crc32(header)))


def test_too_large_a_segment_is_neither_written_nor_read(monkeypatch):
    data = write_segment(RECORDS, SPACE, DIM)
    monkeypatch.setattr(segment_file, "MOST_BYTES", len(data) - 1)
    with pytest.raises(SyncError, match="publish a new base"):
        write_segment(RECORDS, SPACE, DIM)
    with pytest.raises(SyncError, match="expected at most"):
        read_segment(data)


def test_g10_many_deletes_are_small_and_quick():
    ids = [f"item-{number:07d}" for number in range(20_000)]
    data = write_segment(delete(*ids), SPACE, DIM)
    assert len(data) / len(ids) < 22
    assert read_segment(data).deletes == len(ids)
