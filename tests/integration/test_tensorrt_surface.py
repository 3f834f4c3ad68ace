"""Every name of TensorRT that the device's code uses is in the bindings of each version that it supports.

JetPack 6 has TensorRT 10.3 for Python 3.10, JetPack 7.2 has 10.16 for Python 3.12. The bindings here are those for the
Python that runs the tests; their names do not differ between Pythons.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from scripts.tensorrt_builder import FOLDER, VERSIONS, prepare
from tests import fakes_tensorrt
from tests.tensorrt_surface import follow, missing, surface_of

ROOT = Path(__file__).parents[2]
DOOR = sorted((ROOT / "edge/inference").glob("tensorrt_*.py"))


@pytest.fixture(scope="module")
def surfaces():
    """The names of each version; why it is missing, where it cannot be had."""
    absent = prepare()
    return {version: absent.get(version) or surface_of(FOLDER / version) for version in VERSIONS}


@pytest.fixture(params=VERSIONS)
def surface(request, surfaces):
    """The names of one version."""
    if isinstance(surfaces[request.param], str):
        pytest.skip(f"TensorRT {request.param}: {surfaces[request.param]}")
    return surfaces[request.param]


def test_every_name_is_in_the_version(surface):
    found = follow(DOOR, surface)
    assert missing(found.uses, surface) == []
    assert sorted(found.unknown) == [], "the test cannot tell whose name this is"


def test_names_of_every_object_are_seen(surface):
    names = {use.name for use in follow(DOOR, surface).uses}
    for owner in ("Builder", "IBuilderConfig", "INetworkDefinition", "OnnxParser", "IOptimizationProfile", "ITensor"):
        assert any(name.startswith(f"{owner}.") for name in names), owner
    for owner in ("ParserError", "ICudaEngine", "IExecutionContext", "Runtime", "ILogger", "IProgressMonitor"):
        assert any(name.startswith(f"{owner}.") for name in names), owner


def test_stand_in_has_only_names_of_the_version(surface):
    for owner, names in fakes_tensorrt.surface().items():
        real = surface if owner == "(module)" else surface[owner]
        assert names - real.keys() == set(), owner


SOURCE = """
import tensorrt as trt

class Door(trt.IProgressMonitor):
    def __init__(self, logger):
        self._builder = trt.Builder(logger)
        self._kept = [make(self._builder)]

    def phase_began(self, name):
        return None

    def step_complete(self, name, step):
        for config in self._kept:
            config.builder_optimisation_level = 3
        return trt.BuilderFlag.FP16

def make(builder):
    network, config = builder.create_network(0), builder.create_builder_config()
    network.get_input(0).dtype.no_such_name
    return config

def guarded(has):
    return trt.BuilderFlag.NO_SUCH_FLAG if has("BuilderFlag.NO_SUCH_FLAG") else trt.NO_SUCH_CLASS

def unknown(thing):
    return thing.create_execution_context()
"""


def test_names_that_a_version_lacks_are_found(surface, tmp_path):
    path = tmp_path / "door.py"
    path.write_text(SOURCE)
    found = follow([path], surface)
    lacks = ["door:14: IBuilderConfig.builder_optimisation_level", "door:19: DataType.no_such_name"]
    lacks += ["door:23: NO_SUCH_CLASS", "door:9: IProgressMonitor.phase_began"]
    removed = [] if "FP16" in surface["BuilderFlag"] else ["door:15: BuilderFlag.FP16"]  # by version 11
    assert missing(found.uses, surface) == sorted(lacks + removed)
    assert found.unknown == {"door:26: thing.create_execution_context"}


def test_version_11_lacks_what_the_door_must_not_use(surfaces):
    old, new = surfaces["10.3"], surfaces["11.4"]
    if isinstance(old, str) or isinstance(new, str):
        pytest.skip(f"TensorRT 10.3 and 11.4: {next(why for why in (old, new) if isinstance(why, str))}")
    assert {"FP16", "INT8"} <= old["BuilderFlag"].keys()
    assert not {"FP16", "INT8"} & new["BuilderFlag"].keys()
