"""Fixtures: the sample networks, calibrated once for every form."""

import pytest

from quantize.forms.write_forms import calibrate_network
from quantize.network_spec import read_spec, spec_path


@pytest.fixture(scope="session")
def calibrations(exported, data, tmp_path_factory):
    """Return the spec and the calibration of each sample network, by kind."""
    folder, found = tmp_path_factory.mktemp("calibrations"), {}
    for kind in ("classifier", "embedder", "detector"):
        spec = read_spec(spec_path(exported[kind]))
        pictures = data.scenes_for("train") if kind == "detector" else data.calibration_crops(spec)
        prepared = folder / f"{kind}.prepared.onnx"
        found[kind] = spec, calibrate_network(spec, exported[kind], pictures, prepared, lambda p, _: p)
    return found
