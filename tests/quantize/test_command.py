"""Packing from another program, and the names of networks."""

from dataclasses import replace
from pathlib import Path

from quantize.build_network import Policy
from quantize.bundle.pack import PackOptions
from quantize.command import PackSources, named_sources, pack_bundle, runs_in


def test_bundle_is_packed_from_python(exported, data, tmp_path):
    sources = PackSources(classifier=exported["classifier"], embedders=(exported["embedder"],))
    seen = []

    def progress(pictures, what):
        seen.append(what)
        return pictures

    options = PackOptions("shop", 1, tmp_path / "shop")
    packed = pack_bundle(options, sources, data, Policy(min_speedup=0.001, saturates=True), progress=progress)
    assert (packed.folder / "bundle.json").is_file()
    assert [network.name for network in packed.networks] == ["classifier", "embedder-0"]
    assert packed.manifest.bundle_id == "shop"
    assert packed.warnings == ()
    assert seen == ["calibrate classifier", "calibrate embedder-0"]


def test_warnings_are_handed_back(exported, data, tmp_path):
    sources = PackSources(embedders=(exported["embedder"],))
    few = data.__class__([sample for sample in data.samples if sample.split != "val"], [])
    packed = pack_bundle(PackOptions("shop", 1, tmp_path / "shop"), sources, few, Policy(fallback_fp32=True))
    assert "answers have no probability" in packed.warnings[0]


def test_gallery_pictures_that_nothing_embeds_are_counted(exported, data, tmp_path):
    strange = [replace(sample, category="果汁") for sample in data.samples if sample.split == "catalogue"][:3]
    more = replace(data, samples=[*data.samples, *strange])
    sources = PackSources(embedders=(exported["embedder"],))
    packed = pack_bundle(PackOptions("shop", 1, tmp_path / "shop"), sources, more, Policy("fp32"))
    assert packed.warnings == ("left out 3 gallery pictures of 1 categories that no embedder embeds: 果汁 (3)",)


def test_folder_of_runs_stands_for_all_of_them(tmp_path):
    for name in ("can", "am-general~fa29e617c0", "not-a-run"):
        (tmp_path / "runs" / name).mkdir(parents=True)
        if name != "not-a-run":
            (tmp_path / "runs" / name / "model.json").write_text("{}")
    runs = runs_in(tmp_path / "runs")
    assert [run.name for run in runs] == ["am-general~fa29e617c0", "can"]
    assert runs_in(runs[0]) == [runs[0]]
    assert runs_in(tmp_path / "none.onnx") == [tmp_path / "none.onnx"]


def test_networks_get_safe_and_distinct_names():
    given = ["runs/embedder-can", "AM General", "am-general~fa29e617c0", "Cola", "cola", "果汁.onnx", "embedder"]
    names = [name for name, _, _ in named_sources(PackSources(embedders=tuple(map(Path, given))))]
    assert names == [
        "embedder-can",
        "embedder-1",
        "embedder-2",
        "embedder-3",
        "embedder-4",
        "embedder-x~64c25f038c",
        "embedder-6",
    ]
