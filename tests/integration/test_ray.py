"""A catalogue that Ray embeds has the bytes of a run without Ray. `make test` does not install the extra `scale`."""

from __future__ import annotations

import pytest

from edge.imaging.image import encode_image
from tests.trainer.catalogue.test_embed_gallery import write_bundle
from tests.trainer.toy import write_crops
from trainer.cli import main

pytest.importorskip("ray", reason="Ray is 0.5 GB and is not installed; pip install 'finesight[scale]'")
pytestmark = pytest.mark.filterwarnings("default")  # of Ray


def embed(folder, *words: str) -> int:
    return main(["embed", "--bundle", f"{folder}/bundle", "--data", f"{folder}/data/index.csv", *words])


def test_ray_gives_the_bytes_of_a_plain_run_and_goes_on(tmp_path, monkeypatch, capsys):
    write_crops(tmp_path / "data", per_item=3, items=4)
    (tmp_path / "data/red-0-0.png").write_bytes(encode_image_of_nothing())
    write_bundle(tmp_path / "bundle", ["red", "blue"])
    monkeypatch.setattr("trainer.catalogue.ray_cluster.CHUNK_PICTURES", 4)
    assert embed(tmp_path, "-o", f"{tmp_path}/plain") == 0
    for _ in range(2):  # the second finds every part
        assert embed(tmp_path, "-o", f"{tmp_path}/ray", "--ray", "local", "--parts", f"{tmp_path}/parts") == 0
        assert '"skipped": 1' in capsys.readouterr().out
    assert len(list((tmp_path / "parts").glob("part-*.bin"))) == 4
    for name in ("red.sqlite", "blue.sqlite"):
        assert (tmp_path / "plain" / name).read_bytes() == (tmp_path / "ray" / name).read_bytes()


def encode_image_of_nothing() -> bytes:
    """A picture that ends early."""
    import numpy as np

    return encode_image(np.zeros((40, 32, 3), np.uint8), ".png")[:40]


def test_ray_names_what_is_wrong_in_one_line(tmp_path, capsys):
    write_crops(tmp_path / "data", per_item=3)
    write_bundle(tmp_path / "bundle", ["red", "blue"])
    (tmp_path / "parts").write_bytes(b"a file, not a folder")
    assert embed(tmp_path, "-o", f"{tmp_path}/ray", "--ray", "local", "--parts", f"{tmp_path}/parts") == 1
    assert len(capsys.readouterr().err.strip().splitlines()[-1]) < 300
