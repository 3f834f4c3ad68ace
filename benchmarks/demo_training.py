"""Training time of the demo's models, in full and with --quick: CPU time of some steps, scaled to all steps.

    python benchmarks/demo_training.py

CPU time, because wall time depends on the other load of the machine. Evaluations are not counted.
Renders a few pictures into runs/demo-training/. Writes benchmarks/results/demo_training.json.
"""

from __future__ import annotations

import sys
import tempfile
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))
WORK = ROOT / "runs/demo-training"
STEPS, WARM = 8, 2  # timed steps, and warm-up steps
# Of the demo: training scenes, pictures of each item, items of each category.
SCENES, CROPS, ITEMS = 1600, 66, 14
CROPS_HERE, SCENES_HERE = 10, 40
MODELS = ("classifier", "detector", "bottle", "jar", "carton", "can", "car")


class _EnoughError(Exception):
    """Raised when all steps are timed."""


def main() -> None:
    """Time the full and the quick training of every model."""
    import torch

    from benchmarks import rig
    from trainer.loop.training_loop import keep_freed_memory
    from trainer.synthetic.write_dataset import write_dataset

    keep_freed_memory()
    torch.set_num_threads(1)
    if not (WORK / "index.csv").exists():
        write_dataset(WORK, 1, scenes=SCENES_HERE, crops_per_item=CROPS_HERE, catalogue_pictures=2, workers=1)
    rows = {form: {name: measure(name, quick=form == "quick") for name in MODELS} for form in ("full", "quick")}
    totals = {form: round(sum(row["cpu_s"] for row in models.values())) for form, models in rows.items()}
    report = {"threads": 1, "timed_steps": STEPS, "cpu_s": totals, "models": rows}
    rig.write_report(report, ROOT / "benchmarks/results/demo_training.json")


def measure(name: str, *, quick: bool) -> dict[str, Any]:
    """Return the CPU time of a step, and of the whole training at the demo's size."""
    from trainer.quick import shortened
    from trainer.recipe import ClassifierRecipe, DetectorRecipe, load_recipe
    from trainer.tasks.classifier import train_classifier
    from trainer.tasks.detector import train_detector
    from trainer.tasks.embedder import train_embedders

    kind = name if name in {"classifier", "detector"} else "embedder"
    pictures = [f"scenes.train={WORK}/scenes.json"] if kind == "detector" else [f"data.index={WORK}/index.csv"]
    if kind == "embedder":
        pictures += [f"data.categories=[{name}]", "init_from=null"]
    recipe = load_recipe(ROOT / f"configs/train/demo-{kind}.yaml", pictures)
    recipe = shortened(recipe) if quick else recipe
    if isinstance(recipe, DetectorRecipe):
        train, epochs, steps = train_detector, recipe.optimiser.epochs, SCENES // recipe.optimiser.batch
    elif isinstance(recipe, ClassifierRecipe):
        steps = len(MODELS[2:]) * ITEMS * CROPS // recipe.optimiser.batch
        train, epochs = train_classifier, recipe.optimiser.epochs
    else:
        shown = min(recipe.classes_per_batch, ITEMS) * recipe.images_per_class
        train, epochs, steps = train_embedders, recipe.for_category(name).optimiser.epochs, ITEMS * CROPS // shown
    step_s = time_steps(train, recipe)
    return {
        "step_cpu_ms": round(1e3 * step_s, 1),
        "epochs": epochs,
        "steps": epochs * steps,
        "cpu_s": round(step_s * epochs * steps, 1),
    }


def time_steps(train: Any, recipe: Any) -> float:
    """Return the mean CPU time of a step, including the preparation of its pictures."""
    from trainer.loop.training_loop import _Epochs

    starts: list[float] = []
    minimise = _Epochs._minimise  # noqa: SLF001  a step begins only there

    def timed(self: Any, *arguments: Any) -> dict[str, float]:
        starts.append(time.process_time())
        if len(starts) > WARM + STEPS:
            raise _EnoughError
        return minimise(self, *arguments)

    _Epochs._minimise = timed  # noqa: SLF001
    try:
        with tempfile.TemporaryDirectory() as folder:
            train(recipe, Path(folder))
    except _EnoughError:
        return (starts[-1] - starts[WARM]) / STEPS
    finally:
        _Epochs._minimise = minimise  # noqa: SLF001
    raise RuntimeError(f"found {len(starts)} steps, expected more than {WARM + STEPS}")


if __name__ == "__main__":
    main()
