"""A packed bundle with both forms of every model, from the sample networks."""

from pathlib import Path

import pytest

from quantize.build_network import Policy, build_network
from quantize.bundle.pack import PackOptions, pack
from quantize.dataset import Data
from quantize.gates import LIMITS


@pytest.fixture(scope="session")
def bundle(exported: dict[str, Path], data: Data, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("reports")
    untrained = frozenset(f"detector.{gate}" for gate in LIMITS)  # it finds nothing
    policy = Policy(min_speedup=0.001, saturates=True, waived=untrained)
    kinds = ("detector", "classifier", "embedder", "localiser")
    networks = [build_network(k, exported[k], folder, data, policy, lambda pictures, _: pictures) for k in kinds]
    out = folder / "bundle"
    pack(PackOptions("both", 1, out, keep_both=True), networks, data)
    return out
