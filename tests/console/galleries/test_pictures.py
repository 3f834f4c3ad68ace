"""Pictures of items: embedded with the newest bundle, checked, split by what is known, and erased."""

from __future__ import annotations

import numpy as np
import pytest

from console.galleries.drafts import add_pictures as add_crops
from console.galleries.embedding import embed_drafts
from console.galleries.grouping import group_vectors
from console.galleries.items import read_item, store_of, vector_ids
from console.galleries.lookalikes import mean_row, nearest, pairs_of
from console.sets.pictures import add_picture
from console.sets.sets import create_set
from console.storage.database import open_database
from console.tables import TABLES
from edge.errors import ConsoleError
from tests.console_galleries import add_pictures, curating, devices_see, draft, png, publish_all
from tests.fleet_bundles import CATEGORY


def warnings(client, draft_id):
    drafts = client.get("/api/v1/gallery/drafts").json["drafts"]
    return next(one["warnings"] for one in drafts if one["id"] == draft_id)


def record(client, item):
    with client.services.database.read() as rows:
        return read_item(rows, store_of(rows, CATEGORY), item)


def test_pictures_become_a_new_item(tmp_path):
    with curating(tmp_path) as client:
        add_pictures(client, "new", "New", 7, 8, 9)
        publish_all(client)
        assert devices_see(tmp_path / "repo")["new"] == "New"
        assert len(record(client, "new").scales) == 18
        assert client.get(f"/api/v1/gallery/thumbnail?category={CATEGORY}&item=new").headers["content-type"] == (
            "image/jpeg"
        )


def test_more_pictures_of_an_item_keep_its_label(tmp_path):
    with curating(tmp_path) as client:
        add_pictures(client, "item-1", "Ignored", 1, 1, 1, 1)
        publish_all(client)
        assert devices_see(tmp_path / "repo")["item-1"] == "Item 1"
        assert len(record(client, "item-1").scales) == 3 + 4


def test_pictures_are_checked_as_at_a_kiosk(tmp_path):
    with curating(tmp_path) as client:
        said = " ".join(warnings(client, add_pictures(client, "new", "New", 2, 2)))
        assert "looks like item 'item-2', 'Item 2'" in said
        assert "there are few pictures" in said


def test_files_that_are_no_pictures_are_refused(tmp_path):
    with curating(tmp_path) as client:
        for data in (b"", b"<svg onload=alert(1)>", b"<html>", b"\xff\xd8\xff" + b"0" * 100):
            reply = client.upload("/api/v1/gallery/drafts/add", {"../../x.png": data}, category=CATEGORY, item="n")
            assert reply.status == 422
        reply = client.upload("/api/v1/gallery/drafts/add", {}, category=CATEGORY, item="n")
        assert reply.status == 422
        assert client.get("/api/v1/gallery/drafts").json["drafts"] == []
        assert not (tmp_path / "data/gallery/pictures").exists()


def test_crop_that_is_gone_is_the_drafts_problem(tmp_path):
    with curating(tmp_path) as client:
        services = client.services
        with services.database.write() as connection:
            made = add_crops(connection, 1.0, "ann", CATEGORY, "new", "New", [123])
        embed_drafts(services.database, services.gallery, [made], lambda done, total: None)
        (one,) = client.get("/api/v1/gallery/drafts").json["drafts"]
        assert one["problem"]
        assert "cannot be done" in publish_all(client)


def test_crops_of_a_set_become_pictures_of_an_item(tmp_path):
    folder = tmp_path / "pictures"
    folder.mkdir()
    with curating(tmp_path) as client:
        services = client.services
        with services.database.write() as connection:
            set_id = create_set(connection, 1.0, "ann", "shelf pictures", "folder", folder)
            for number in (7, 8, 9):
                path = folder / f"{number}.png"
                path.write_bytes(png(number, 0))
                assert add_picture(connection, 1.0, set_id, path.name, path, whole=True) is not None
            crops = [row[0] for row in connection.execute("SELECT id FROM crops ORDER BY id")]
        body = {"category": CATEGORY, "item": "new", "label": "From crops", "crops": crops}
        made = client.send("POST", "/api/v1/gallery/drafts/add-crops", body).json["drafts"][0]
        services.tasks.wait("gallery/embed", 60.0)
        (one,) = client.get("/api/v1/gallery/drafts").json["drafts"]
        assert one["does"] == ["add item 'new' of 'shelf': 'From crops' with 18 vectors"]
        assert len(list((tmp_path / "data/gallery/pictures" / str(made)).iterdir())) == 3
        publish_all(client)
        assert devices_see(tmp_path / "repo")["new"] == "From crops"


def test_number_of_crops_is_bounded(tmp_path):
    database = open_database(tmp_path, TABLES)
    with pytest.raises(ConsoleError, match="expected 1 to 1000"), database.write() as connection:
        add_crops(connection, 1.0, "ann", CATEGORY, "new", "New", [])
    database.close()


def test_item_is_split_by_the_pictures_that_are_known(tmp_path):
    with curating(tmp_path) as client:
        made = add_pictures(client, "item-1", "", 7, 7, 7, 7)
        publish_all(client)
        with client.services.database.read() as rows:
            store = store_of(rows, CATEGORY)
            groups = group_vectors(rows, CATEGORY, "item-1", record(client, "item-1"), store["space_id"])
        known = [one for one in groups if one.picture_id is not None]
        assert [len(one.vectors) for one in known] == [1, 1, 1, 1]
        assert {one.draft_id for one in known} == {made}
        vectors = [" ".join(one.vectors) for one in known]
        draft(client, "split", "item-1", new_item="own", label="Its own", vectors=vectors, thumbnail=made)
        publish_all(client)
        assert devices_see(tmp_path / "repo")["own"] == "Its own"
        assert (len(record(client, "own").scales), len(record(client, "item-1").scales)) == (4, 3)
        assert record(client, "own").thumbnail is not None


def test_last_vector_is_not_taken_away(tmp_path):
    with curating(tmp_path) as client:
        names = vector_ids(record(client, "item-1"))
        body = {"category": CATEGORY, "item": "item-1", "vectors": names}
        refused = client.send("POST", "/api/v1/gallery/drafts/remove", body)
        assert "would have no vector left" in refused.json["error"]
        draft(client, "remove", "item-1", vectors=names[:2])
        publish_all(client)
        assert vector_ids(record(client, "item-1")) == names[2:]


def test_deleting_erases_the_consoles_own_pictures(tmp_path):
    with curating(tmp_path) as client:
        made = add_pictures(client, "new", "New", 7, 8, 9)
        publish_all(client)
        folder = tmp_path / "data/gallery/pictures" / str(made)
        assert len(list(folder.iterdir())) == 3
        draft(client, "delete", "new")
        assert len(list(folder.iterdir())) == 3
        publish_all(client)
        assert list(folder.iterdir()) == []
        with client.services.database.read() as rows:
            assert rows.execute("SELECT count(*) FROM gallery_origins").fetchone()[0] == 0
            assert rows.execute("SELECT count(*) FROM gallery_drafts WHERE vectors NOT NULL").fetchone()[0] == 0


def test_dialog_says_what_a_deletion_cannot_erase(tmp_path):
    with curating(tmp_path) as client:
        said = client.get(f"/parts/gallery/deletion?category={CATEGORY}&item=item-1").text
        assert "delete item &#39;item-1&#39; of &#39;shelf&#39;: &#39;Item 1&#39;" in said
        assert "every device deletes them at its next poll" in said
        assert "offline window of 365 days" in said


def test_look_alikes_are_those_of_nearest_means(tmp_path):
    with curating(tmp_path) as client, client.services.database.read() as rows:
        store = store_of(rows, CATEGORY)
        for number in range(4):
            item = f"item-{number}"
            found = nearest(rows, store, mean_row(read_item(rows, store, item)), [], 4)
            assert (found[0].item, found[0].similarity) == (item, pytest.approx(1, abs=1e-3))
            others = {one.item: one.similarity for one in found[1:]}
            mean = mean_row(read_item(rows, store, item)).astype(float)
            for other, similarity in others.items():
                row = mean_row(read_item(rows, store, other)).astype(float)
                cosine = mean @ row / np.linalg.norm(mean) / np.linalg.norm(row)
                assert similarity == pytest.approx(cosine, abs=1e-4)
        pairs = pairs_of(rows, store["id"], 10)
        assert all(one.similarity >= store["threshold"] for one in pairs)
        assert len({(one.one.item, one.other.item) for one in pairs}) == len(pairs)
