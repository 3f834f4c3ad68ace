"""The report page of a bundle."""

import base64
import hashlib
import json
import re
import shutil
from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from edge.durable import sha256_of
from edge.errors import BundleError, QuantizeError
from edge.inference.engine_choice import EngineChoice, choice_path, write_choice
from edge.manifest.manifest import parse_manifest
from edge.types import Image
from quantize import cli
from quantize.reports.accuracy import SHOWN, Flip
from quantize.reports.report import ReportOptions, write_report
from quantize.reports.report_page import render_page

LABELS = {"detector", "classifier", "localiser", "embedder"}


def quiet(models, what):
    return models


class Page(HTMLParser):
    """Collects what a browser would load or run."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def all(self, tag):
        return [attributes for name, attributes in self.tags if name == tag]


@pytest.fixture(scope="module")
def flipping(bundle, tmp_path_factory):
    """The bundle, with an INT8 classifier that confuses the two classes."""
    folder = tmp_path_factory.mktemp("flipping") / "bundle"
    shutil.copytree(bundle, folder)
    swap_classes(folder / "models/classifier.ort-u8.onnx")
    path = folder / "bundle.json"
    manifest = json.loads(path.read_text())
    for entry in manifest["files"]:
        file = folder / entry["path"]
        entry |= {"size": file.stat().st_size, "sha256": sha256_of(file)}
    manifest["provenance"]["models"]["classifier"]["saturation_free"] = False
    path.write_text(json.dumps(manifest))
    return folder


def swap_classes(path):
    """Swap the two classes of a classifier in its last layer."""
    model = onnx.load(str(path))
    gemm = next(node for node in model.graph.node if node.op_type == "Gemm")
    for tensor in model.graph.initializer:
        if tensor.name in gemm.input[1:]:
            value = numpy_helper.to_array(tensor)
            tensor.CopyFrom(numpy_helper.from_array(np.ascontiguousarray(value[::-1]), tensor.name))
    onnx.save(model, str(path))


@pytest.fixture(scope="module")
def report(flipping, data, tmp_path_factory):
    out = tmp_path_factory.mktemp("reports") / "report"
    write_report(flipping, ReportOptions(out), replace(data, held_out_images=60), quiet)
    return out


def told(report):
    return json.loads((report / "report.json").read_text())


def model_of(report, name):
    return next(model for model in told(report)["models"] if model["name"] == name)


def test_page_loads_nothing_and_runs_nothing(report):
    page = Page((report / "report.html").read_text())
    assert page.all("script") == page.all("link") == page.all("iframe") == []
    assert all(image["src"].startswith("data:image/jpeg;base64,") for image in page.all("img"))
    assert all(link["href"].startswith("#model-") for link in page.all("a"))
    assert not [attributes for _, attributes in page.tags if {"style", "onclick", "onload"} & set(attributes)]
    (policy,) = [one["content"] for one in page.all("meta") if one.get("http-equiv") == "Content-Security-Policy"]
    assert policy.startswith("default-src 'none'; img-src data:; style-src 'sha256-")


def test_policy_of_the_page_allows_its_own_style_and_no_other(report):
    page = (report / "report.html").read_text()
    (style,) = re.findall("<style>(.*?)</style>", page, re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    assert f"style-src 'sha256-{digest}'; base-uri 'none'" in page


def test_links_lead_to_every_model(report):
    page = Page((report / "report.html").read_text())
    anchors = {one["id"] for one in page.all("details") if "id" in one}
    assert anchors == {f"model-{name}" for name in LABELS}
    assert {link["href"][1:] for link in page.all("a")} == anchors


def test_changed_answers_are_counted_and_shown_with_both_scores(report):
    measured = model_of(report, "classifier")["measured"]["ort-u8"]
    assert (measured["changed"], measured["of"]) == (60, 60)
    assert len(measured["flips"]) == SHOWN
    first = measured["flips"][0]
    assert {first["fp32"].split()[0], first["form"].split()[0]} == {"box", "can"}
    assert first["fp32"].startswith(first["truth"])
    assert 0.5 < float(first["form"].split()[1]) <= 1
    page = (report / "report.html").read_text()
    assert "60 of 60 pictures, 12 shown." in page
    assert len(Page(page).all("img")) >= SHOWN


def test_gate_that_fails_here_is_the_first_thing_to_see(report):
    page = (report / "report.html").read_text()
    look = page.partition("Look at these first")[2].partition("</section>")[0]
    assert "gates fail: ort-u8 top1" in look


def test_every_engine_and_form_has_time_memory_and_fusion(report):
    for name in LABELS:
        model = model_of(report, name)
        pairs = {(one["engine"], one["form"]) for one in model["latency"]}
        assert {("onnxruntime", "fp32"), ("onnxruntime", "ort-u8")} <= pairs
        assert all(one["ms"] > 0 for one in model["latency"])
        assert {f"{engine} {form}" for engine, form in pairs} == set(model["memory_mib"])
        assert pairs == {(one["engine"], one["form"]) for one in model["fusion"]}
    assert told(report)["made"]["not_tried"].keys() >= {"onnxruntime-cuda"}


def test_without_pictures_accuracy_is_that_of_packing(bundle, tmp_path):
    write_report(bundle, ReportOptions(tmp_path / "report", measure=False), None, quiet)
    page = (tmp_path / "report/report.html").read_text()
    assert "Accuracy is as measured when the bundle was packed." in page
    assert "recall_at_1_fp32_gallery" in page
    model = model_of(tmp_path / "report", "embedder")
    assert (model["measured"], "latency" in model, "fusion" in model) == ({}, False, False)


def test_report_tells_what_the_device_chose_and_what_failed_there(bundle, tmp_path):
    manifest = parse_manifest((bundle / "bundle.json").read_text(), "bundle.json")
    failed = {"backend": "openvino", "form": "ort-u8", "problem": "2 of 8 probes failed"}
    passed = {"backend": "onnxruntime", "form": "ort-u8", "ms": 0.5, "score_ms": 0.5}
    entry = {
        "backend": "onnxruntime",
        "form": "ort-u8",
        "since": "2026-11-28T10:00:00Z",
        "reason": "fastest of 2",
        "tried": [passed, failed],
    }
    choice = {"schema": 1, "bundle_id": "both", "made_at": "2026-11-28T10:00:00Z", "backend": "auto", "machine": {}}
    write_choice(
        choice_path(tmp_path, manifest), EngineChoice.model_validate(choice | {"models": {"classifier": entry}})
    )
    out = tmp_path / "report"
    write_report(bundle, ReportOptions(out, state=tmp_path, measure=False), None, quiet)
    page = (out / "report.html").read_text()
    assert "The device runs onnxruntime ort-u8 since 2026-11-28T10:00:00Z: fastest of 2." in page
    assert "openvino ort-u8: 2 of 8 probes failed" in page
    assert model_of(out, "detector")["chosen"] is None


def test_names_from_outside_cannot_become_markup():
    evil = '<img src=x onerror="alert(1)">'
    picture: Image = np.zeros((8, 8, 3), np.uint8)
    model = {
        "name": evil,
        "kind": "classifier",
        "input": evil,
        "ship": "ort-u8",
        "why": evil,
        "bytes": {},
        "packed": {"metrics": {evil: {"fp32": 1.0, "int8": 0.9}}, "images": 1},
        "measured": {"ort-u8": {"metrics": {}, "changed": 1, "of": 1, "gates": {}}},
        "saturates_here": False,
        "chosen": None,
    }
    bundle = {"id": evil, "sequence": 1, "created_at": evil, "packed_on": evil, "bytes": 0, "waived": [evil]}
    made = {"at": "", "cpu": evil, "cores": 2, "load_1_min": 0.1, "engines": [], "not_tried": {}}
    report = {
        "bundle": bundle | {"warnings": [evil]},
        "made": made | {"accuracy_measured": True},
        "models": [model],
    }
    page = Page(render_page(report, {(evil, "ort-u8"): [Flip(evil, picture, evil, evil, evil)]}))
    assert [set(image) for image in page.all("img")] == [{"alt", "src"}]
    assert re.fullmatch(r"model-[A-Za-z0-9-]+", page.all("a")[0]["href"][1:])


def test_page_of_a_hundred_embedders_stays_readable(report):
    one = model_of(report, "embedder")
    many = [one | {"name": f"embedder-{number:03}"} for number in range(100)]
    page = render_page(told(report) | {"models": many}, {})
    parsed = Page(page)
    assert len([d for d in parsed.all("details") if "id" in d]) == 100
    assert not [details for details in parsed.all("details") if "open" in details]
    assert len(page) < 4_000_000


def test_existing_folder_is_one_clear_line(bundle, tmp_path, capsys):
    assert cli.main(["report", str(bundle), "-o", str(tmp_path)]) == 1
    assert capsys.readouterr().err == f"edge-quantize: {tmp_path} already exists; choose a new folder with -o\n"


@pytest.mark.parametrize("verb", ["report", "kit"])
def test_folder_that_is_no_bundle_is_one_clear_line(data_folder, tmp_path, capsys, verb):
    more = ["--index", str(data_folder / "index.csv")]
    assert cli.main([verb, str(tmp_path), "-o", str(tmp_path / "out"), *more]) == 1
    assert capsys.readouterr().err == f"edge-quantize: {tmp_path}: is not a bundle folder: it has no bundle.json\n"


def test_damaged_bundle_is_refused_and_leaves_no_report(flipping, tmp_path):
    broken = tmp_path / "bundle"
    shutil.copytree(flipping, broken)
    (broken / "models/embedder.fp32.onnx").write_bytes(b"")
    with pytest.raises(BundleError, match=r"embedder\.fp32\.onnx"):
        write_report(broken, ReportOptions(tmp_path / "out"), None, quiet)
    assert [path.name for path in tmp_path.iterdir()] == ["bundle"]


@pytest.mark.parametrize(("state", "why"), [("none", "no such folder"), ("empty", "holds no choice of engines")])
def test_state_folder_without_a_choice_is_one_clear_line(bundle, tmp_path, state, why):
    (tmp_path / "empty").mkdir()
    with pytest.raises(QuantizeError, match=why):
        write_report(bundle, ReportOptions(tmp_path / "out", state=tmp_path / state), None, quiet)


def test_pictures_of_another_split_only_are_one_clear_line(bundle, data, tmp_path):
    with pytest.raises(QuantizeError, match="no scenes of split 'nothing'"):
        write_report(bundle, ReportOptions(tmp_path / "out"), replace(data, held_out_split="nothing"), quiet)
    assert list(tmp_path.iterdir()) == []
