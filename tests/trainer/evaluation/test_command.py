"""Evaluation of the demo's bundle on its own probes, from the command line."""

from __future__ import annotations

import csv
import json
import re
from pathlib import Path

import numpy as np
import pytest

from edge.imaging.image import encode_image, read_image
from tests.trainer.catalogue.test_embed_gallery import write_bundle
from tests.trainer.toy import write_crops, write_index
from trainer.cli import main

DEMO = Path(__file__).parents[3] / "demo"


@pytest.fixture
def index(tmp_path):
    """The bundle's golden probes as queries, brighter ones as references, and a truncated picture."""
    probes = json.loads((DEMO / "bundle/bundle.json").read_text())["probes"]
    (tmp_path / "torn.png").write_bytes(b"\x89PNG")
    rows = [(tmp_path / "torn.png", "val", probes[0]["category"], probes[0]["item_id"])]
    for number, probe in enumerate(probes):
        picture, brighter = DEMO / "bundle" / probe["path"], tmp_path / f"{number}.png"
        brighter.write_bytes(encode_image(np.minimum(read_image(picture), 253) + 2, ".png"))
        for path, split in (picture, "val"), (brighter, "reference"):
            rows.append((path, split, probe["category"], probe["item_id"]))
    with (tmp_path / "index.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("path", "split", "category", "item"), *rows])
    return tmp_path / "index.csv"


def test_bundle_is_evaluated_in_every_precision_beside_a_peer(index, tmp_path, capsys):
    bundle = ["--bundle", str(DEMO / "bundle"), "--bundle-gallery", str(DEMO / "gallery")]
    data = ["--data", str(index), "--gallery", "reference", "--left-out", "0.1", "--peer", f"again={DEMO / 'bundle'}"]
    assert main(["evaluate", *bundle, *data, "-o", str(tmp_path / "out/report.json")]) == 0
    report = json.loads(capsys.readouterr().out)
    assert list(report["columns"]) == ["bundle, INT8", "bundle, FP32", "again"]
    assert report["about"]["unreadable"] == 1
    assert report["about"]["protocol"] == "separate gallery"
    assert [table["protocol"] for table in report["columns"].values()] == ["stored gallery"] * 2 + ["separate gallery"]
    for table in report["columns"].values():
        assert table["end_to_end"]["top_1"]["mean"] == 1.0
        assert table["coarse"]["accuracy"]["mean"] == 1.0
        assert table["latency_ms"]["p50"] > 0
    opened = report["columns"]["bundle, INT8"]["open_world"]
    assert opened["known"] + opened["unknown"] == report["about"]["images"]
    assert opened["at_shipped_thresholds"]["nothing_left_out"]["identified"] > 0.9
    page = (tmp_path / "out/report.html").read_text()
    assert re.search(r"<title>Evaluation of bundle</title>", page)
    assert "| again |" in (tmp_path / "out/report.md").read_text()
    answers = json.loads((tmp_path / "out/report.json").read_text())["answers"]
    assert len(answers) == report["about"]["images"]
    right = [one for one in answers if one["outcome"] == "right"]
    assert all(one["nearest"] == one["item"] for one in right)
    assert answers[-len(right) :] == right


def test_usage_mistakes_are_one_line_errors(index, capsys):
    assert main(["evaluate"]) == 1
    assert "nothing to evaluate" in capsys.readouterr().err
    bundle = ["--bundle", str(DEMO / "bundle"), "--bundle-gallery", str(DEMO / "gallery")]
    assert main(["evaluate", *bundle, "--data", str(index), "--gallery", "reference", "--peer", "nameless"]) == 1
    assert "write it as NAME=WHERE" in capsys.readouterr().err
    assert main(["evaluate", "--checkout", "3"]) == 1
    assert "--checkout needs --bundle" in capsys.readouterr().err


@pytest.fixture
def toy(tmp_path):
    """A bundle that embeds the mean colour, and pictures of different colours of two items in each category."""
    write_bundle(tmp_path / "bundle", ["red", "blue"])
    return ["evaluate", "--bundle", str(tmp_path / "bundle"), "--data", str(write_crops(tmp_path / "data"))]


def test_queries_that_are_the_gallery_are_searched_without_themselves(toy, tmp_path, capsys, caplog):
    out = tmp_path / "report.json"
    assert main([*toy, "--query", "train", "--gallery", "train", "--left-out", "0.5", "-o", str(out)]) == 0
    report = json.loads(capsys.readouterr().out)
    assert (report["about"]["protocol"], report["about"]["queries_in_gallery"]) == ("leave-one-out", 16)
    (table,) = report["columns"].values()
    assert table["protocol"] == "leave-one-out"
    assert table["retrieval"]["recall_at_1"]["mean"] < 1.0  # the colour does not tell the items of a category apart
    assert table["retrieval"]["recall_at_32"]["mean"] == 1.0
    assert (
        "capped at the number of gallery pictures that a query is searched among: red 6, blue 7" in table["noticed"][0]
    )
    assert table["without_a_match"] == 0
    assert "16 query pictures are in the gallery, too" in caplog.text
    assert "leave-one-out: 16 of the pictures are in the gallery" in out.with_suffix(".md").read_text()
    assert "Recall@16" in out.with_suffix(".html").read_text()


def test_items_of_one_picture_are_counted_and_in_no_share(toy, tmp_path, capsys):
    names = ["red-0-0", "red-0-1", "red-1-0", "blue-0-0"]
    write_index(tmp_path / "data", [(f"{name}.png", "test", name[:-4], name[:-2]) for name in names])
    assert main([*toy, "--query", "test", "--gallery", "test"]) == 0
    (table,) = json.loads(capsys.readouterr().out)["columns"].values()
    assert table["without_a_match"] == 2
    assert table["end_to_end"]["top_1"]["count"] == table["retrieval"]["recall_at_1"]["count"] == 2
    assert (table["open_world"]["known"], table["open_world"]["unknown"]) == (2, 2)
    assert list(table["categories"]) == ["red"]


def test_stored_gallery_of_the_queries_is_noticed(toy, tmp_path, capsys):
    gallery = str(tmp_path / "gallery")
    embed = ["embed", *toy[1:], "--split", "train", "-o", gallery]
    assert main(embed) == 0
    assert json.loads(capsys.readouterr().out)["splits"] == ["train"]
    assert main([*toy, "--query", "train", "--gallery", "train", "--bundle-gallery", gallery]) == 0
    (table,) = json.loads(capsys.readouterr().out)["columns"].values()
    assert table["protocol"] == "stored gallery"
    assert "in the stored gallery, too, which does not name its pictures: red 8, blue 8" in table["noticed"][1]


def test_absent_split_is_one_line_that_lists_the_splits(toy, tmp_path, capsys):
    assert main([*toy, "--query", "test"]) == 1
    assert (
        "no picture belongs to split 'test'; there are train (16 pictures), val (8 pictures)" in capsys.readouterr().err
    )
    assert main(["embed", *toy[1:], "--split", "train,tset", "-o", str(tmp_path / "gallery")]) == 1
    assert "no picture belongs to split 'tset'; there are train" in capsys.readouterr().err
    assert not (tmp_path / "gallery").exists()


def test_without_a_catalogue_the_training_pictures_are_the_gallery(toy, tmp_path, capsys, caplog):
    assert main(toy) == 0
    about = json.loads(capsys.readouterr().out)["about"]
    assert (about["query"], about["gallery"]) == ("val", "train")
    assert "there is no split 'catalogue': 'train' is the gallery" in caplog.text
    assert main(["embed", *toy[1:], "-o", str(tmp_path / "gallery")]) == 0
    assert json.loads(capsys.readouterr().out)["pictures"] == 16
    assert "there is no split 'catalogue': 'train' is embedded" in caplog.text
