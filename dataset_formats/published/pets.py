"""Oxford-IIIT Pets (Parkhi et al. 2012): 37 breeds of cats and dogs. Its boxes are of heads, so they are not used."""

from __future__ import annotations

from pathlib import Path

from dataset_formats.folders import contents_of, innermost_folder
from dataset_formats.listings import finish
from dataset_formats.published.class_disjoint import read_class_folders, split_by_class
from dataset_formats.records import Listing, Sample
from dataset_formats.text_files import as_stored, is_file, read_lines

_CATEGORY = "pet"
_PLACES = ("annotations", "annotations/annotations", "")
_LIST = "list.txt"
_SPLITS = {"train": "trainval.txt", "test": "test.txt"}
_FIELDS = 4  # name, class, species, breed of the species
_SPECIES = {"1": "cat", "2": "dog"}


def looks_like_pets(folder: Path) -> bool:
    """Return whether a folder holds Pets: its tables beside `images`."""
    tables = _tables_of(folder)
    return tables is not None and (folder / "images").is_dir()


def read_pets(folder: Path, *, published: bool = False) -> Listing:
    """Read Pets; every breed is an item of the category `pet`, and has the attribute `species`.

    Args:
        folder: holds `images` and `annotations` with list.txt, trainval.txt and test.txt; or `images` alone, whose
            names are of breeds, such as Abyssinian_1.jpg; or folders of breeds.
        published: train on the first 19 breeds and test on the others; False: split by trainval.txt and test.txt.

    Raises:
        DataError: a table is broken, or no picture can be used.
    """
    tables, images = _tables_of(folder), folder / "images"
    if tables is None and not images.is_dir():
        return read_class_folders(folder, "pets", _CATEGORY, str.casefold, published=published)
    pictures = innermost_folder(images)
    listing = Listing("pets")
    rows = _rows(tables, listing, published=published) if tables is not None else {}
    if not rows:
        listing.noticed.append(f"{folder / _PLACES[0] / _LIST}: not found; the names of the pictures tell the breeds")
        rows = {path.stem: ("train", "") for path in contents_of(pictures).pictures}
    for name, (split, species) in rows.items():
        path, item = as_stored(pictures / f"{name}.jpg"), name.rpartition("_")[0]
        if not item:
            listing.left_out.append(f"{path}: found {name!r}, expected a breed and a number, such as Abyssinian_1")
        elif not is_file(path):
            listing.left_out.append(f"{path}: not found; extract it again")
        else:
            attributes = (("species", species),) if species else ()
            sample = Sample(path, split, _CATEGORY, item, item.replace("_", " "), attributes=attributes)
            listing.samples.append(sample)
    if published:
        split_by_class(listing, sorted({one.item for one in listing.samples}, key=str.casefold))
    return finish(listing, folder, "its tables are empty; extract them again")


def _tables_of(folder: Path) -> Path | None:
    places = (folder / place for place in _PLACES)
    return next((one for one in places if all((one / name).is_file() for name in _SPLITS.values())), None)


def _rows(tables: Path, listing: Listing, *, published: bool) -> dict[str, tuple[str, str]]:
    """Return split and species of each picture; the published split takes all that list.txt has."""
    found: dict[str, tuple[str, str]] = {}
    files = {"train": _LIST} if published and (tables / _LIST).is_file() else _SPLITS
    for split, file in files.items():
        for line in read_lines(tables / file):
            if line.startswith("#"):
                continue
            words = line.split()
            if len(words) != _FIELDS:
                listing.left_out.append(f"{tables / file}: found {line[:60]!r}, expected a name and three numbers")
            elif words[0] in found:
                listing.left_out.append(f"{tables / file}: {words[0]}: is listed twice; keep one")
            else:
                found[words[0]] = split, _SPECIES.get(words[2], "")
    return found
