"""Writes a synthetic data set and a stream: `python -m trainer.synthetic --out DIR`."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from trainer.synthetic.dataset import write_dataset
from trainer.synthetic.items import catalogue
from trainer.synthetic.stream import write_stream


def main(argv: list[str] | None = None) -> int:
    """Runs the command."""
    parser = argparse.ArgumentParser(prog="python -m trainer.synthetic", description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="folder to write to")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--scenes", type=int, default=2000)
    parser.add_argument("--crops-per-item", type=int, default=60)
    parser.add_argument("--gallery-looks", type=int, default=6)
    parser.add_argument("--workers", type=int, default=None, help="processes; all cores when absent")
    args = parser.parse_args(argv)
    index = write_dataset(
        args.out, args.seed, args.scenes, args.crops_per_item, args.gallery_looks, workers=args.workers
    )
    truth = write_stream(args.out / "stream.mp4", args.seed, catalogue())
    sys.stdout.write(f"{index}\n{truth}\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
