"""The retail product checkout set (RPC): single products to train on, and checkout scenes of three levels of clutter.

Wei et al. 2019, "RPC: A Large-Scale Retail Product Checkout Dataset". Its boxes are COCO.
"""

from __future__ import annotations

from pathlib import Path

from dataset_formats.coco.locate import Locator
from dataset_formats.coco.merge import merge_parts
from dataset_formats.coco.reader import found_part, parse_coco
from dataset_formats.listings import finish
from dataset_formats.records import Listing
from dataset_formats.text_files import require_file
from edge.errors import DataError

_SPLITS = ("train", "val", "test")


def read_rpc(folder: Path) -> Listing:
    """Read instances_{train,val,test}2019.json beside {train,val,test}2019.

    Raises:
        DataError: all of these files are missing, or one lacks its pictures.
    """
    listing = Listing("rpc")
    files = {split: folder / f"instances_{split}2019.json" for split in _SPLITS}
    if not any(file.is_file() for file in files.values()):
        raise DataError(f"{files['train']}: not found; RPC needs its annotations")
    parts = []
    for split, file in files.items():
        if file.is_file():
            pictures = require_file(folder / f"{split}2019", f"the folder of RPC's {split} pictures")
            parts.append(found_part(file, parse_coco(file), Locator(pictures), split))
        else:
            listing.left_out.append(f"{file}: not found; RPC is read without its {split} split")
    merge_parts(parts, listing)
    return finish(listing, folder, "lists no picture; extract it again")
