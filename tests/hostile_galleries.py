"""Galleries whose hashes are right and whose content is not: every kind of harm that data from outside can do.

`HOSTILE` names a function for each kind. It changes a good gallery in place and makes the index fit, as somebody who
can publish would.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import random
import shutil
import sqlite3
import struct
import zlib
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

HOSTILE: dict[str, Callable[[Path], None]] = {}
DEEP, PAGE = 100_000, 4096
DEEP_METADATA = 10_000  # below the limit of its length


def make_hostile(good: Path, target: Path, name: str) -> Path:
    """Write the hostile gallery of a name.

    Args:
        good: an intact gallery, whose first category is attacked.
        target: folder to write.
        name: of HOSTILE.
    """
    shutil.copytree(good, target)
    HOSTILE[name](target)
    return target


def first_store(folder: Path) -> Path:
    """Return the store that is attacked."""
    return min(folder.glob("*.sqlite"))


def read_index(folder: Path) -> dict:
    """Return the index of a gallery."""
    return json.loads((folder / "gallery.json").read_text())


def write_index(folder: Path, index: dict, *, recount: bool = True) -> None:
    """Write an index with the hashes and counts of the stores that are there, and the generation that fits."""
    for name, entry in index["categories"].items():
        path = folder / f"{name}.sqlite"
        if path.is_file() and isinstance(entry, dict):
            data = path.read_bytes()
            entry.update(size=len(data), sha256=hashlib.sha256(data).hexdigest())
            if recount:
                entry.update(_counts_of(path))
    index["generation"] = generation_of(index["categories"])
    (folder / "gallery.json").write_text(json.dumps(index))


def _counts_of(path: Path) -> dict[str, int]:
    """Return the counts of a store, where a table can be counted in little time."""
    with contextlib.suppress(sqlite3.Error), closing(sqlite3.connect(path)) as store:
        store.set_progress_handler(lambda: 1, 1_000_000)
        items = store.execute("SELECT count(*) FROM items WHERE deleted = 0").fetchone()[0]
        return {"items": items, "vectors": store.execute("SELECT count(*) FROM vectors").fetchone()[0]}
    return {}


def generation_of(categories: object) -> str:
    """Return the id of a generation as devices compute it."""
    return hashlib.sha256(json.dumps(categories, sort_keys=True).encode()).hexdigest()[:16]


def _sql(*statements: str, loose: bool = False, recount: bool = True) -> Callable[[Path], None]:
    """Return a change by SQL; `loose` allows what the table's constraints forbid."""

    def change(folder: Path) -> None:
        path = first_store(folder)
        tables = dict(_execute(path, "SELECT name, sql FROM sqlite_master WHERE type = 'table'"))
        if loose:
            _rewrite_schema(path, {name: sql.replace("NOT NULL", "") for name, sql in tables.items()})
        _execute(path, *statements)
        if loose:
            _rewrite_schema(path, tables)
        write_index(folder, read_index(folder), recount=recount)

    return change


def _execute(path: Path, *statements: str) -> list:
    with closing(sqlite3.connect(path, isolation_level=None)) as store:
        rows = [store.execute(statement).fetchall() for statement in statements]
    return rows[-1]


def _rewrite_schema(path: Path, tables: dict[str, str]) -> None:
    with closing(sqlite3.connect(path, isolation_level=None)) as store:
        store.execute("PRAGMA writable_schema=ON")
        for name, sql in tables.items():
            store.execute("UPDATE sqlite_master SET sql = ? WHERE name = ?", (sql, name))


def _raw(change: Callable[[bytearray], bytes | bytearray]) -> Callable[[Path], None]:
    """Return a change of the bytes of a store."""

    def apply(folder: Path) -> None:
        path = first_store(folder)
        path.write_bytes(change(bytearray(path.read_bytes())))
        write_index(folder, read_index(folder), recount=False)

    return apply


def _entry(**changes: object) -> Callable[[Path], None]:
    """Return a change of an entry of the index."""

    def apply(folder: Path) -> None:
        index = read_index(folder)
        next(iter(index["categories"].values())).update(changes)
        write_index(folder, index, recount=False)

    return apply


def _index(change: Callable[[dict], object]) -> Callable[[Path], None]:
    """Return a change of the whole index; the result is written as it is, without a generation that fits."""

    def apply(folder: Path) -> None:
        changed = change(read_index(folder))
        text = changed if isinstance(changed, str) else json.dumps(changed)
        (folder / "gallery.json").write_text(text)

    return apply


def _put(offset: int, layout: str, *values: int) -> Callable[[bytearray], bytearray]:
    def change(data: bytearray) -> bytearray:
        struct.pack_into(layout, data, offset, *values)
        return data

    return change


def _set(table: str, column: str, value: str, *, loose: bool = False, every: bool = False) -> Callable[[Path], None]:
    first = {"items": "item_id = (SELECT min(item_id) FROM items)", "vectors": "row = 1", "meta": "1"}[table]
    where = "" if every else f" WHERE {first}"
    return _sql(f"UPDATE {table} SET {column} = {value}{where}", loose=loose)


def _property(key: str, value: str) -> Callable[[Path], None]:
    return _sql(f"UPDATE meta SET value = {value} WHERE key = '{key}'")


def _text(value: str) -> str:
    return "'" + value.replace("'", "''") + "'"


# Vectors
HOSTILE["vector_short"] = _set("vectors", "vector", "x'01'")
HOSTILE["vectors_all_short"] = _set("vectors", "vector", "x'0102'", every=True)
HOSTILE["vector_empty"] = _set("vectors", "vector", "x''")
HOSTILE["vector_long"] = _set("vectors", "vector", "CAST(vector || vector AS BLOB)")
HOSTILE["vector_huge"] = _set("vectors", "vector", "randomblob(30000000)")
HOSTILE["vector_zero"] = _set("vectors", "vector", "zeroblob(length(vector))")
HOSTILE["vectors_all_zero"] = _set("vectors", "vector", "zeroblob(length(vector))", every=True)
HOSTILE["vector_text"] = _set("vectors", "vector", "substr('" + "x" * 2000 + "', 1, length(vector))")
HOSTILE["vector_number"] = _set("vectors", "vector", "12345")
HOSTILE["vector_null"] = _set("vectors", "vector", "NULL", loose=True)
HOSTILE["scale_1e300"] = _set("vectors", "scale", "1e300")
HOSTILE["scales_all_1e300"] = _set("vectors", "scale", "1e300", every=True)
HOSTILE["scale_denormal"] = _set("vectors", "scale", "5e-324")
HOSTILE["scale_zero"] = _set("vectors", "scale", "0.0")
HOSTILE["scale_negative"] = _set("vectors", "scale", "-scale")
HOSTILE["scale_infinite"] = _set("vectors", "scale", "9e999")
HOSTILE["scale_null"] = _set("vectors", "scale", "NULL", loose=True)
HOSTILE["scale_text"] = _set("vectors", "scale", "'big'")
HOSTILE["scale_blob"] = _set("vectors", "scale", "x'00'")
HOSTILE["scale_doubled"] = _set("vectors", "scale", "2 * scale", every=True)
HOSTILE["vector_of_a_ghost"] = _set("vectors", "item_id", "'ghost'")
HOSTILE["vector_of_a_blob"] = _set("vectors", "item_id", "CAST(item_id AS BLOB)")
HOSTILE["vector_of_null"] = _set("vectors", "item_id", "NULL", loose=True)
HOSTILE["vectors_missing"] = _sql("DELETE FROM vectors")
HOSTILE["vectors_of_one_item_missing"] = _sql("DELETE FROM vectors WHERE item_id = (SELECT min(item_id) FROM items)")
HOSTILE["vectors_doubled"] = _sql(
    "INSERT INTO vectors (item_id, vector, scale) SELECT item_id, vector, scale FROM vectors", recount=False
)

# Texts of items
HOSTILE["id_blob"] = _set("items", "item_id", "CAST(item_id AS BLOB)")
HOSTILE["id_null"] = _set("items", "item_id", "NULL")
HOSTILE["id_empty"] = _set("items", "item_id", "''")
HOSTILE["id_long"] = _set("items", "item_id", "hex(zeroblob(1000000))")
HOSTILE["id_with_nul"] = _set("items", "item_id", "'a' || char(0) || 'b'")
HOSTILE["id_not_utf8"] = _set("items", "item_id", "CAST(x'ff61' AS TEXT)")
HOSTILE["ids_of_vectors_and_items_not_utf8"] = _sql(
    "UPDATE items SET item_id = CAST(x'ed' || item_id AS TEXT)",
    "UPDATE vectors SET item_id = CAST(x'ed' || item_id AS TEXT)",
)
HOSTILE["ids_long_everywhere"] = _sql(
    "UPDATE items SET item_id = item_id || hex(zeroblob(100000))",
    "UPDATE vectors SET item_id = item_id || hex(zeroblob(100000))",
)
HOSTILE["label_blob"] = _set("items", "label", "x'00ff'")
HOSTILE["labels_all_blobs"] = _set("items", "label", "x'00ff'", every=True)
HOSTILE["label_null"] = _set("items", "label", "NULL", loose=True)
HOSTILE["labels_all_null"] = _set("items", "label", "NULL", loose=True, every=True)
HOSTILE["label_huge"] = _set("items", "label", "hex(zeroblob(10000000))")
HOSTILE["label_with_nul"] = _set("items", "label", "'a' || char(0)")
HOSTILE["label_not_utf8"] = _set("items", "label", "CAST(x'c328' AS TEXT)")
HOSTILE["label_surrogate"] = _set("items", "label", "CAST(x'eda080' AS TEXT)")

# Metadata
HOSTILE["metadata_list"] = _set("items", "metadata", "'[]'")
HOSTILE["metadata_number"] = _set("items", "metadata", "'5'")
HOSTILE["metadata_text"] = _set("items", "metadata", "'\"x\"'")
HOSTILE["metadata_json_null"] = _set("items", "metadata", "'null'")
HOSTILE["metadata_null"] = _set("items", "metadata", "NULL", loose=True)
HOSTILE["metadata_blob"] = _set("items", "metadata", "x'7b7d'")
HOSTILE["metadata_not_json"] = _set("items", "metadata", "'{'")
HOSTILE["metadata_deep_list"] = _set("items", "metadata", _text("[" * DEEP_METADATA + "]" * DEEP_METADATA))
HOSTILE["metadata_deep_object"] = _set("items", "metadata", _text('{"a":' * DEEP_METADATA + "1" + "}" * DEEP_METADATA))
HOSTILE["metadata_deep_unclosed"] = _set("items", "metadata", _text('{"a":' + "[" * DEEP_METADATA))
HOSTILE["metadata_huge"] = _set("items", "metadata", "'{\"a\":\"' || hex(zeroblob(10000000)) || '\"}'")
HOSTILE["metadata_nan"] = _set("items", "metadata", "'{\"a\":NaN}'")
HOSTILE["metadata_infinite"] = _set("items", "metadata", "'{\"a\":1e999}'")
HOSTILE["metadata_long_number"] = _set("items", "metadata", _text('{"a":' + "9" * 5000 + "}"))
HOSTILE["metadata_key_twice"] = _set("items", "metadata", '\'{"negative":false,"negative":true}\'')
HOSTILE["metadata_surrogate"] = _set("items", "metadata", '\'{"a":"\\ud800"}\'')
HOSTILE["negative_text"] = _set("items", "metadata", '\'{"negative":"no"}\'')
HOSTILE["negative_list"] = _set("items", "metadata", "'{\"negative\":[0]}'")

# Rows and counts
HOSTILE["items_missing"] = _sql("DELETE FROM items")
HOSTILE["everything_missing"] = _sql("DELETE FROM items", "DELETE FROM vectors", recount=False)
HOSTILE["item_more_than_counted"] = _sql(
    "INSERT INTO items SELECT item_id || '-2', label, metadata, NULL, NULL, 0 FROM items LIMIT 1"
)
HOSTILE["deleted_two"] = _set("items", "deleted", "2")
HOSTILE["deleted_text"] = _set("items", "deleted", "'no'")
HOSTILE["deleted_null"] = _set("items", "deleted", "NULL", loose=True)
HOSTILE["deleted_all"] = _set("items", "deleted", "1", every=True)
HOSTILE["silhouette_odd"] = _set("items", "outline", "x'00'", every=True)
HOSTILE["silhouette_empty"] = _set("items", "outline", "x''", every=True)
HOSTILE["silhouette_text"] = _set("items", "outline", "hex(zeroblob(256))", every=True)
HOSTILE["silhouettes_huge"] = _set("items", "outline", "zeroblob(512 * 70000)")
HOSTILE["thumbnail_html"] = _set("items", "thumbnail", "CAST('<script>alert(1)</script>' AS BLOB)", every=True)
HOSTILE["thumbnail_text"] = _set("items", "thumbnail", "'not a picture'", every=True)
HOSTILE["thumbnail_number"] = _set("items", "thumbnail", "7", every=True)
HOSTILE["thumbnail_empty"] = _set("items", "thumbnail", "x''", every=True)
HOSTILE["thumbnail_huge"] = _set("items", "thumbnail", "CAST(x'ffd8ff' || randomblob(20000000) AS BLOB)")
HOSTILE["thumbnail_cut"] = _set("items", "thumbnail", "x'ffd8ffe000104a464946'", every=True)


def _png_of(width: int, height: int) -> bytes:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(bytes(1000))) + chunk(b"IEND", b"")


HOSTILE["thumbnail_bomb"] = _set("items", "thumbnail", f"x'{_png_of(60_000, 60_000).hex()}'", every=True)

# Properties
HOSTILE["format_missing"] = _sql("DELETE FROM meta WHERE key = 'schema'")
HOSTILE["format_later"] = _property("schema", "'2'")
HOSTILE["format_blob"] = _property("schema", "x'31'")
HOSTILE["format_long_number"] = _property("schema", _text("9" * 5000))
HOSTILE["format_other_digits"] = _property("schema", "'²'")
HOSTILE["space_missing"] = _sql("DELETE FROM meta WHERE key = 'space_id'")
HOSTILE["space_other"] = _property("space_id", f"'{'b' * 64}'")
HOSTILE["space_blob"] = _property("space_id", "x'00'")
HOSTILE["category_other"] = _property("category", "'another'")
HOSTILE["category_missing"] = _sql("DELETE FROM meta WHERE key = 'category'")
HOSTILE["properties_many"] = _sql(
    "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 200000) "
    "INSERT INTO meta SELECT 'a' || i, 'x' FROM n"
)
HOSTILE["property_huge"] = _sql("INSERT INTO meta VALUES ('a', hex(zeroblob(20000000)))")
for _name, _heads in {
    "none": "[]",
    "null": "null",
    "number": "7",
    "object": "{}",
    "deep": "[" * DEEP,
    "dim_zero": '[{"name":"class","dim":0}]',
    "dim_negative": '[{"name":"class","dim":-12},{"name":"local","dim":24}]',
    "dim_huge": '[{"name":"class","dim":1000000000000}]',
    "dim_text": '[{"name":"class","dim":"many"}]',
    "of_another_name": '[{"name":"colour","dim":12}]',
}.items():
    HOSTILE[f"heads_{_name}"] = _property("heads", _text(_heads))

# Schema
_ROWS_30M = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 30000000) SELECT"
HOSTILE["vectors_view_of_30_million_rows"] = _sql(
    "ALTER TABLE vectors RENAME TO v",
    f"CREATE VIEW vectors AS {_ROWS_30M} n.i AS row, v.item_id, v.vector, v.scale FROM n, (SELECT * FROM v LIMIT 1) v",
)
HOSTILE["items_view_of_30_million_rows"] = _sql(
    "ALTER TABLE items RENAME TO old",
    f"CREATE VIEW items AS {_ROWS_30M} 'i' || n.i AS item_id, 'x' AS label, '{{}}' AS metadata, NULL AS thumbnail, "
    "NULL AS outline, 0 AS deleted FROM n",
)
HOSTILE["meta_view"] = _sql("ALTER TABLE meta RENAME TO m", "CREATE VIEW meta AS SELECT key, value FROM m")
HOSTILE["endless_view"] = _sql(
    "ALTER TABLE vectors RENAME TO v",
    "CREATE VIEW vectors AS WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) "
    "SELECT n.i AS row, v.item_id, v.vector, v.scale FROM n, v",
)
HOSTILE["trigger"] = _sql("CREATE TRIGGER t AFTER INSERT ON items BEGIN DELETE FROM items; END")
HOSTILE["further_table"] = _sql("CREATE TABLE more (x)")
HOSTILE["further_index"] = _sql("CREATE INDEX more ON vectors (hex(vector))")
HOSTILE["virtual_table"] = _sql(
    "DROP TABLE vectors", "CREATE VIRTUAL TABLE vectors USING fts5(row, item_id, vector, scale)"
)
HOSTILE["generated_column"] = _sql("ALTER TABLE items ADD COLUMN big GENERATED ALWAYS AS (hex(zeroblob(100000000)))")
HOSTILE["column_missing"] = _sql("ALTER TABLE items DROP COLUMN outline")
HOSTILE["column_renamed"] = _sql("ALTER TABLE items RENAME COLUMN label TO title")
HOSTILE["table_missing"] = _sql("DROP TABLE vectors")
HOSTILE["tables_swapped"] = _sql(
    "ALTER TABLE vectors RENAME TO x", "ALTER TABLE items RENAME TO vectors", "ALTER TABLE x RENAME TO items"
)
HOSTILE["analysed"] = _sql("ANALYZE")  # statistics lead the query planner


def _same_root(folder: Path) -> None:
    """Put two tables on one page."""
    path = first_store(folder)
    root = "(SELECT rootpage FROM sqlite_master WHERE name = 'items')"
    _execute(path, "PRAGMA writable_schema=ON", f"UPDATE sqlite_master SET rootpage = {root} WHERE name = 'vectors'")
    write_index(folder, read_index(folder))


HOSTILE["two_tables_on_one_page"] = _same_root


def _id_twice(folder: Path) -> None:
    """Give all items one id: the index of ids no longer fits the table."""
    path = first_store(folder)
    schema = _execute(path, "SELECT type, name, tbl_name, rootpage, sql FROM sqlite_master WHERE tbl_name = 'items'")
    index = next(row for row in schema if row[0] == "index")
    sql = next(row for row in schema if row[0] == "table")[4]
    _execute(path, "PRAGMA writable_schema=ON", f"DELETE FROM sqlite_master WHERE name = '{index[1]}'")
    _rewrite_schema(path, {"items": sql.replace("PRIMARY KEY", "")})
    one = "(SELECT min(item_id) FROM items)"
    _execute(path, f"UPDATE items SET item_id = {one}", f"UPDATE vectors SET item_id = {one}")
    _rewrite_schema(path, {"items": sql})
    values = ", ".join("NULL" if value is None else repr(value) for value in index)
    _execute(path, "PRAGMA writable_schema=ON", f"INSERT INTO sqlite_master VALUES ({values})")
    write_index(folder, read_index(folder))


HOSTILE["id_twice"] = _id_twice


# File
def _other_application(folder: Path) -> None:
    path = first_store(folder)
    path.unlink()
    _execute(
        path, "CREATE TABLE moz_places (id INTEGER PRIMARY KEY, url TEXT)", "INSERT INTO moz_places VALUES (1, 'x')"
    )
    write_index(folder, read_index(folder))


HOSTILE["other_application"] = _other_application
HOSTILE["file_empty"] = _raw(lambda _: b"")
HOSTILE["file_of_text"] = _raw(lambda _: b"not a database " * 500)
HOSTILE["file_random"] = _raw(lambda data: random.Random(1).randbytes(len(data)))
HOSTILE["file_header_only"] = _raw(lambda data: data[:100])
HOSTILE["file_cut_in_a_page"] = _raw(lambda data: data[: len(data) // 2 + 7])
HOSTILE["file_cut_at_a_page"] = _raw(lambda data: data[:-4096])
HOSTILE["file_with_a_tail"] = _raw(lambda data: data + b"tail")
HOSTILE["file_with_a_page_more"] = _raw(lambda data: data + bytes(4096))
HOSTILE["file_zeros"] = _raw(lambda data: bytes(len(data)))
HOSTILE["write_ahead_log"] = _raw(_put(18, ">BB", 2, 2))
HOSTILE["later_file_format"] = _raw(_put(18, ">BB", 3, 3))
HOSTILE["page_size_other"] = _raw(_put(16, ">H", 512))
HOSTILE["page_size_odd"] = _raw(_put(16, ">H", 1000))
HOSTILE["page_count_huge"] = _raw(_put(28, ">I", 0xFFFFFFFE))
HOSTILE["page_count_zero"] = _raw(_put(28, ">I", 0))
HOSTILE["free_pages_huge"] = _raw(_put(32, ">II", 2, 0xFFFFFFFF))
HOSTILE["free_page_is_used"] = _raw(_put(32, ">II", 3, 1))
HOSTILE["reserved_bytes"] = _raw(_put(20, ">B", 200))
HOSTILE["encoding_utf16"] = _raw(_put(56, ">I", 2))
HOSTILE["auto_vacuum"] = _raw(_put(52, ">I", 3))


def _inner_page(child: int, cells: int = 300) -> bytes:
    """Return an inner page of a table, all of whose children are one page."""
    page = bytearray(PAGE)
    struct.pack_into(">BHHHBI", page, 0, 5, 0, cells, PAGE - 5 * cells, 0, child)
    for cell in range(cells):
        at = PAGE - 5 * (cells - cell)
        struct.pack_into(">H", page, 12 + 2 * cell, at)
        struct.pack_into(">IB", page, at, child, cell % 127 + 1)
    return bytes(page)


def _vectors_page(change: Callable[[bytearray, int], bytearray]) -> Callable[[Path], None]:
    """Return a change of the root page of the vectors; it gets the file and the number of that page."""

    def apply(folder: Path) -> None:
        root = _execute(first_store(folder), "SELECT rootpage FROM sqlite_master WHERE name = 'vectors'")[0][0]
        _raw(lambda data: change(data, root))(folder)

    return apply


def _put_page(data: bytearray, number: int, page: bytes) -> bytearray:
    data[(number - 1) * PAGE : number * PAGE] = page
    struct.pack_into(">I", data, 28, len(data) // PAGE)
    return data


def _fan_out(data: bytearray, root: int) -> bytearray:
    """Put four inner pages above the rows, each with 301 times the next page: 8 billion times the same rows."""
    rows, first_new = bytes(data[(root - 1) * PAGE : root * PAGE]), len(data) // PAGE + 1
    _put_page(data, root, _inner_page(first_new))
    for number in range(first_new, first_new + 3):
        _put_page(data, number, _inner_page(number + 1))
    return _put_page(data, first_new + 3, rows)


HOSTILE["page_zeroed"] = _vectors_page(lambda data, root: _put_page(data, root, bytes(PAGE)))
HOSTILE["page_of_noise"] = _vectors_page(lambda data, root: _put_page(data, root, random.Random(2).randbytes(PAGE)))
HOSTILE["tree_that_is_its_own_child"] = _vectors_page(lambda data, root: _put_page(data, root, _inner_page(root)))
HOSTILE["tree_with_8_billion_leaves"] = _vectors_page(_fan_out)


def _replaced_by(kind: str) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        path = first_store(folder)
        moved = path.with_suffix(".moved")
        path.rename(moved)
        if kind == "link":
            path.symlink_to(moved.name)
        elif kind == "folder":
            path.mkdir()
        elif kind == "pipe":
            os.mkfifo(path)

    return change


HOSTILE["store_is_a_link"] = _replaced_by("link")
HOSTILE["store_is_a_folder"] = _replaced_by("folder")
HOSTILE["store_is_a_pipe"] = _replaced_by("pipe")
HOSTILE["store_missing"] = _replaced_by("nothing")

# Index
HOSTILE["index_items_negative"] = _entry(items=-1)
HOSTILE["index_items_other"] = _entry(items=1)
HOSTILE["index_vectors_huge"] = _entry(vectors=10**18)
HOSTILE["index_vectors_other"] = _entry(vectors=1)
HOSTILE["index_heads_none"] = _entry(heads=[])
HOSTILE["index_dim_zero"] = _entry(heads=[{"name": "class", "dim": 0}])
HOSTILE["index_dim_negative"] = _entry(heads=[{"name": "class", "dim": -12}, {"name": "local", "dim": 24}])
HOSTILE["index_dim_huge"] = _entry(heads=[{"name": "class", "dim": 10**15}])
HOSTILE["index_heads_many"] = _entry(heads=[{"name": "class", "dim": 1}] * 100_000)
HOSTILE["index_space_short"] = _entry(space_id="abc")


def _with(**changes: object) -> Callable[[dict], dict]:
    return lambda index: {**index, **changes}


HOSTILE["index_generation_path"] = _index(_with(generation="../../../etc"))
HOSTILE["index_generation_empty"] = _index(_with(generation=""))
HOSTILE["index_generation_other"] = _index(_with(generation="0" * 16))
HOSTILE["index_time_of_no_calendar"] = _index(_with(created_at="2026-13-45T00:00:00Z"))
HOSTILE["index_time_with_escapes"] = _index(_with(created_at="\x1b[2J now"))
HOSTILE["index_time_huge"] = _index(_with(created_at="x" * 5_000_000))
HOSTILE["index_format_later"] = _index(_with(schema=2))
HOSTILE["index_categories_list"] = _index(_with(categories=[]))
HOSTILE["index_categories_many"] = _index(_with(categories={str(i): 0 for i in range(50_000)}))
HOSTILE["index_name_with_nul"] = _index(lambda index: _renamed(index, "a\0b"))
HOSTILE["index_name_empty"] = _index(lambda index: _renamed(index, ""))
HOSTILE["index_name_long"] = _index(lambda index: _renamed(index, "x" * 100_000))
HOSTILE["index_name_path"] = _index(lambda index: _renamed(index, "../../../etc/passwd"))
HOSTILE["index_deep"] = _index(lambda _: '{"categories":' * DEEP)
HOSTILE["index_deep_key"] = _index(lambda index: json.dumps(index)[:-1] + ',"x":' + "[" * DEEP + "]" * DEEP + "}")
HOSTILE["index_key_twice"] = _index(lambda index: json.dumps(index)[:-1] + ',"schema":1}')
HOSTILE["index_huge"] = _index(lambda index: json.dumps(index) + " " * (20 << 20))
HOSTILE["index_lists_huge"] = _index(lambda _: "[" + "[]," * 200_000 + "[]]")
HOSTILE["index_nan"] = _index(lambda index: json.dumps({**index, "x": float("nan")}))
HOSTILE["index_long_number"] = _index(lambda index: json.dumps(index)[:-1] + ',"x":' + "9" * 1_000_000 + "}")
HOSTILE["index_not_utf8"] = lambda folder: (folder / "gallery.json").write_bytes(b'{"schema":1,"x":"\xff"}') and None
HOSTILE["index_empty"] = _index(lambda _: "")
HOSTILE["index_surrogate_name"] = _index(lambda index: _renamed(index, "\ud800"))


def _renamed(index: dict, name: str) -> dict:
    """Rename the first category, with a generation that fits."""
    first, *others = index["categories"].values()
    names = list(index["categories"])[1:]
    categories = {name: first, **dict(zip(names, others, strict=True))}
    return {**index, "categories": categories, "generation": generation_of(categories)}
