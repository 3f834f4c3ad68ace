"""The command of the how-to that trains with several processes works as printed."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

from tests.trainer.toy import classifier_recipe, write_crops
from trainer.models.networks import load_card

PAGE = Path(__file__).parents[2] / "docs/how-to/large-catalogues.md"


def test_printed_torchrun_command_trains_with_two_processes(tmp_path):
    (line,) = re.findall(r"^\$ (torchrun .*)$", PAGE.read_text(encoding="utf-8"), re.MULTILINE)
    words = shlex.split(line)
    recipe = classifier_recipe(write_crops(tmp_path / "data"), epochs=1)
    (tmp_path / "recipe.yaml").write_text(recipe.model_dump_json(), encoding="utf-8")
    words[words.index("-c") + 1] = str(tmp_path / "recipe.yaml")
    words[words.index("-o") + 1] = str(tmp_path / "run")
    assert words[words.index("--nproc-per-node") + 1] == "2"
    command = [sys.executable, "-m", "torch.distributed.run", *words[1:]]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False, timeout=600
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count('"metrics"') == 1  # only rank 0 answers
    assert load_card(tmp_path / "run").kind == "classifier"
