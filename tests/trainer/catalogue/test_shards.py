"""Shards, resumed runs and object storage: whatever way a gallery is made, its bytes are the same."""

from __future__ import annotations

import errno
import json
import sqlite3
import sys
from pathlib import Path

import pytest

from edge.gallery.generation import read_gallery
from edge.gallery.writer import GalleryWriter
from edge.imaging.image import decode_image, encode_image
from tests.trainer.catalogue.test_embed_gallery import write_bundle
from tests.trainer.toy import write_crops
from trainer.catalogue import run_shard
from trainer.catalogue.embed_item import ItemEmbedder
from trainer.catalogue.items import collect_items, shard_of
from trainer.catalogue.part_files import Record
from trainer.cli import main
from trainer.data.dataset import read_samples

SHARDS = [3, 2, 3, 1, 2, 1, 3, 1]  # of the toy items, by blue-0, blue-1, ...: the same on every machine, for ever


@pytest.fixture
def world(tmp_path, monkeypatch) -> Path:
    """A folder with a catalogue of 8 items and a bundle; a part holds two items."""
    write_crops(tmp_path / "data", per_item=3, items=4)
    write_bundle(tmp_path / "bundle", ["red", "blue"])
    monkeypatch.setattr(run_shard, "CHUNK_PICTURES", 4)
    return tmp_path


def run(world: Path, *words: str, out: str = "gallery", **places: str) -> int:
    """Run `edge-train embed` on the catalogue."""
    bundle, data = places.get("bundle", world / "bundle"), places.get("data", world / "data/index.csv")
    return main(["embed", "--bundle", str(bundle), "--data", str(data), "-o", str(world / out), *words])


def seal(world: Path, *parts: str, out: str = "gallery") -> int:
    """Run `edge-train seal`."""
    return main(["seal", *(str(world / one) for one in parts), "--bundle", f"{world}/bundle", "-o", str(world / out)])


def stores(folder: Path) -> dict[str, bytes]:
    """The bytes of the stores of a gallery."""
    read_gallery(folder)
    return {path.name: path.read_bytes() for path in folder.glob("*.sqlite")}


def count_embedded(monkeypatch) -> list[str]:
    """Count the items that are really embedded from now on."""
    embedded: list[str] = []
    embed = ItemEmbedder.embed

    def counted(self, item, known=()):
        result = embed(self, item, known)
        embedded.extend([item.item_id] * isinstance(result, Record))
        return result

    monkeypatch.setattr(ItemEmbedder, "embed", counted)
    return embedded


def answer(capsys) -> dict[str, object]:
    return json.loads(capsys.readouterr().out)


def test_jobs_and_shards_give_the_same_bytes(world, capsys):
    assert run(world, "--jobs", "1", out="one") == 0
    assert run(world, "--jobs", "3", out="three") == 0
    for number in (1, 2, 3):
        assert run(world, "--shard", f"{number}/3", "--parts", f"{world}/parts-{number}") == 0
    assert seal(world, "parts-3", "parts-1", "parts-2", out="joined") == 0
    assert len(stores(world / "one")) == 2
    assert stores(world / "one") == stores(world / "three") == stores(world / "joined")
    assert not (world / "one.parts").exists()


def test_every_item_belongs_to_one_shard(world):
    items = collect_items(read_samples(world / "data/index.csv"))
    assert [shard_of(item, 3) for item in items] == SHARDS


def test_run_that_stopped_goes_on_where_it_was(world, monkeypatch):
    embed, failing = ItemEmbedder.embed, ["red-2"]

    def fails(self, item, known=()):
        if item.item_id in failing:
            raise KeyboardInterrupt
        return embed(self, item, known)

    monkeypatch.setattr(ItemEmbedder, "embed", fails)
    with pytest.raises(KeyboardInterrupt):
        run(world, "--jobs", "2")
    assert len(list((world / "gallery.parts").glob("part-*.bin"))) == 3  # of 2 items each; red-2 is the 7th
    failing.clear()
    embedded = count_embedded(monkeypatch)
    assert run(world) == 0
    assert sorted(embedded) == ["red-2", "red-3"]
    assert run(world, out="fresh") == 0
    assert stores(world / "gallery") == stores(world / "fresh")


def test_only_changed_pictures_are_embedded_again(world, monkeypatch, capsys):
    keep = ("--parts", f"{world}/parts")
    assert run(world, *keep) == 0
    embedded = count_embedded(monkeypatch)
    assert run(world, *keep) == 0
    assert embedded == []
    changed = world / "data/red-1-0.png"
    changed.write_bytes(encode_image(decode_image(changed.read_bytes(), "it")[:, ::-1].copy(), ".png"))
    assert run(world, *keep) == 0
    assert embedded == ["red-1"]
    assert run(world, "--few", "9", *keep) == 0  # another option: everything
    assert len(embedded) == 1 + 8
    assert run(world, "--few", "9", out="fresh") == 0
    assert stores(world / "gallery") == stores(world / "fresh")


def test_damaged_part_is_made_again_and_counted(world, monkeypatch, capsys):
    assert run(world, "--parts", f"{world}/parts") == 0
    before = stores(world / "gallery")
    part = min((world / "parts").glob("part-*.bin"))
    part.write_bytes(part.read_bytes()[:-40] + bytes(40))
    embedded = count_embedded(monkeypatch)
    capsys.readouterr()
    assert run(world, "--parts", f"{world}/parts") == 0
    assert (answer(capsys)["damaged_parts"], len(embedded)) == (1, 2)
    assert stores(world / "gallery") == before


def test_part_that_cannot_be_read_stays(world, monkeypatch, capsys):
    assert run(world, "--parts", f"{world}/parts") == 0
    before = sorted((world / "parts").iterdir())

    read = Path.read_bytes

    def fails(path):
        if path.suffix == ".bin":
            raise OSError(errno.EIO, "Input/output error")
        return read(path)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "read_bytes", fails)
        assert run(world, "--parts", f"{world}/parts") == 1
    assert ".bin: cannot read: Input/output error" in capsys.readouterr().err
    assert sorted((world / "parts").iterdir()) == before


def test_full_disk_is_one_clear_line(world, monkeypatch, capsys):
    def fails(self):
        raise sqlite3.OperationalError("database or disk is full")

    monkeypatch.setattr(GalleryWriter, "close", fails)
    assert run(world) == 1
    assert f"{world}/gallery: cannot write the gallery: database or disk is full" in capsys.readouterr().err


def test_run_without_shards_ignores_shards_beside_it(world):
    assert run(world, "--shard", "1/3") == 0
    assert run(world) == 0
    assert run(world, out="fresh") == 0
    assert stores(world / "gallery") == stores(world / "fresh")


def test_store_of_a_category_whose_pictures_broke_is_removed(world):
    assert run(world) == 0
    for picture in (world / "data").glob("blue-*.png"):
        picture.write_bytes(b"")
    assert run(world) == 0
    assert list(stores(world / "gallery")) == ["red.sqlite"]


def test_bad_picture_spoils_no_shard(world, capsys):
    (world / "data/red-0-1.png").write_bytes(b"")
    for number in (1, 2):
        assert run(world, "--shard", f"{number}/2", "--parts", f"{world}/parts") == 0
    capsys.readouterr()
    assert seal(world, "parts") == 0
    assert (told := answer(capsys))["skipped"] == 1
    assert (told["pictures"], told["items"]) == (15, 8)


def refusal(world: Path, capsys, *parts: str) -> str:
    """What `edge-train seal` says when it refuses."""
    capsys.readouterr()
    assert seal(world, *parts) == 1
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1
    assert not (world / "gallery/gallery.json").exists()
    return lines[0]


def test_seal_names_missing_foreign_and_repeated_shards(world, capsys):
    for number in (1, 2, 3):
        assert run(world, "--shard", f"{number}/4", "--parts", f"{world}/parts-{number}") == 0
    assert "lacks the shards 4/4; run edge-train embed --shard" in refusal(
        world, capsys, "parts-1", "parts-2", "parts-3"
    )
    assert run(world, "--shard", "2/4", "--parts", f"{world}/again") == 0
    assert "shard 2/4 is there 2 times: in" in refusal(world, capsys, "parts-1", "parts-2", "again")
    assert run(world, "--shard", "4/4", "--few", "0", "--parts", f"{world}/parts-4") == 0
    told = refusal(world, capsys, "parts-1", "parts-2", "parts-3", "parts-4")
    assert "parts-4: shard 4/4 is of another bundle, catalogue, option or number of shards than shard 1/4" in told
    assert "holds no finished shard" in refusal(world, capsys, "nowhere")
    assert run(world, "--shard", "4/4", "--parts", f"{world}/right") == 0
    part = next((world / "right").glob("part-*.bin"))
    part.rename(part.with_suffix(".lost"))
    told = refusal(world, capsys, "parts-1", "parts-2", "parts-3", "right")
    assert f"shard 4/4: {part}: cannot read: No such file" in told


@pytest.mark.parametrize("text", ["0/3", "4/3", "1", "a/b", "1/0"])
def test_shard_that_is_no_pair_is_an_error(world, capsys, text):
    assert run(world, "--shard", text) == 1
    assert "--shard: found" in capsys.readouterr().err


@pytest.mark.parametrize("option", ["--per-item", "--jobs"])
def test_number_below_one_is_an_error(world, capsys, option):
    assert run(world, option, "0") == 1
    assert f"{option}: found 0, expected 1 or more" in capsys.readouterr().err


def upload(folder: Path, url: str) -> None:
    """Copy a folder into fsspec's memory."""
    import fsspec

    storage = fsspec.filesystem("memory")
    for path in folder.rglob("*"):
        if path.is_file():
            storage.pipe_file(f"{url}/{path.relative_to(folder)}", path.read_bytes())


def test_object_storage_gives_the_same_bytes(world, capsys):
    import fsspec

    assert run(world, out="local") == 0
    upload(world / "data", "memory://catalogue/data")
    upload(world / "bundle", "memory://catalogue/bundle")
    places = ["--bundle", "memory://catalogue/bundle", "--parts", "memory://catalogue/parts"]
    for number in (1, 2):
        words = ["--data", "memory://catalogue/data", "--shard", f"{number}/2", "-o", "memory://catalogue/out"]
        assert main(["embed", *places, *words]) == 0
    bundle, out = f"{world}/bundle", "memory://catalogue/out"
    assert main(["seal", "memory://catalogue/parts", "--bundle", bundle, "-o", out]) == 0
    storage = fsspec.filesystem("memory")
    for name, data in stores(world / "local").items():
        assert storage.cat_file(f"{out}/{name}") == data
    assert storage.exists(f"{out}/gallery.json")
    storage.rm("memory://catalogue", recursive=True)


def test_pictures_of_a_local_index_may_be_in_object_storage(world):
    import fsspec

    assert run(world, out="plain") == 0
    upload(world / "data", "memory://pictures")
    assert run(world, "--root", "memory://pictures", "--split", "train") == 0
    assert read_gallery(world / "gallery").items == 8
    fsspec.filesystem("memory").rm("memory://pictures", recursive=True)


def test_file_urls_name_local_folders(world):
    assert run(world, out="plain") == 0
    words = ["--bundle", f"file://{world}/bundle", "--data", f"file://{world}/data/index.csv"]
    assert main(["embed", *words, "-o", f"file://{world}/new/gallery", "--parts", f"file://{world}/new/parts"]) == 0
    assert stores(world / "new/gallery") == stores(world / "plain")


def test_unknown_storage_is_one_clear_line(world, capsys):
    assert run(world, data="nosuch://bucket/index.csv") == 1
    assert "nosuch://bucket/index.csv: Protocol not known: nosuch" in capsys.readouterr().err
    assert run(world, data="memory://nothing/index.csv") == 1
    assert "memory://nothing/index.csv: cannot read" in capsys.readouterr().err


def test_ray_that_is_not_installed_is_one_clear_line(world, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "ray", None)
    assert run(world, "--ray", "local") == 1
    assert 'install "finesight[scale]"' in capsys.readouterr().err
