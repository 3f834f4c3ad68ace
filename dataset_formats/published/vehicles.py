"""Vehicle re-identification: VeRi-776 (Liu et al. 2016) and VehicleID (Liu et al. 2016, "Deep relative distance").

Each vehicle is an item of the category `vehicle`. VeRi tells the camera of each picture, the colour and the type;
VehicleID the colour and the model of some vehicles.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from dataset_formats.folders import contents_of, innermost_folder
from dataset_formats.listings import finish
from dataset_formats.notices import in_bulk
from dataset_formats.records import Listing, Sample
from dataset_formats.text_files import as_stored, is_file, read_lines, require_file
from dataset_formats.xml_files import read_children

_CATEGORY = "vehicle"
# Folder, list of names, and table of properties of each split.
_VERI = {
    "train": ("image_train", "name_train.txt", "train_label.xml"),
    "query": ("image_query", "name_query.txt", "test_label.xml"),
    "gallery": ("image_test", "name_test.txt", "test_label.xml"),
}
_ROOTS = {"train_label.xml": "TrainingImages", "test_label.xml": "TestImages"}
_COLOURS = ("yellow", "orange", "green", "gray", "red", "blue", "white", "golden", "brown", "black")
_TYPES = ("sedan", "suv", "van", "hatchback", "mpv", "pickup", "bus", "truck", "estate")
_ID_LISTS = "train_test_split"
_WANTED = ("test_list_800", "test_list_1600", "test_list_2400", "test_list_3200", "test_list_6000", "test_list_13164")


def looks_like_veri(folder: Path) -> bool:
    """Return whether a folder holds VeRi: its lists of names, or its three folders."""
    places = _VERI["query"], _VERI["gallery"]
    return all((folder / pictures).is_dir() for pictures, _, _ in places)


def looks_like_vehicle_id(folder: Path) -> bool:
    """Return whether a folder holds VehicleID."""
    return (folder / _ID_LISTS / "train_list.txt").is_file()


def read_veri(folder: Path) -> Listing:
    """Read VeRi-776: the splits train, query and gallery, with the camera of each picture, its colour and its type.

    Args:
        folder: holds image_train, image_query and image_test; name_train.txt, name_query.txt and name_test.txt (without
            one, its folder is listed); train_label.xml and test_label.xml (without one, its pictures have no
            attributes).

    Raises:
        DataError: a file is broken, or no picture can be used.
    """
    listing = Listing("veri")
    attributes = {file: _properties(folder / file, root, listing) for file, root in _ROOTS.items()}
    named: list[str] = []
    for split, (pictures, names, table) in _VERI.items():
        place = folder / pictures
        if not place.is_dir():
            listing.left_out.append(f"{place}: not found; VeRi is read without its {split} split")
            continue
        if not (folder / names).is_file():
            named.append(names)
        listed = read_lines(folder / names) if names not in named else [p.name for p in contents_of(place).pictures]
        for name in dict.fromkeys(listed):
            vehicle, _, rest = name.partition("_")
            camera = rest.partition("_")[0]
            path = as_stored(place / name)
            if not vehicle.isdecimal() or not camera.startswith("c"):
                listing.left_out.append(f"{path}: found {name[:60]!r}, expected vehicle_camera_..., as 0001_c001_1.jpg")
            elif not is_file(path):
                listing.left_out.append(f"{path}: not found; extract it again")
            else:
                of = attributes[table].get(name, ())
                listing.samples.append(Sample(path, split, _CATEGORY, vehicle, attributes=of, camera=camera))
    listing.noticed += in_bulk(f"{folder}: lists that are not there; the folders were listed", named)
    return finish(listing, folder, "its lists are empty; extract them again")


def _properties(file: Path, root: str, listing: Listing) -> dict[str, tuple[tuple[str, str], ...]]:
    """Return colour and type of each picture, from a table of VeRi; its declared encoding is often GB2312."""
    if not file.is_file():
        listing.noticed.append(f"{file}: not found; its pictures have no colour and no type")
        return {}
    found: dict[str, tuple[tuple[str, str], ...]] = {}
    unknown: list[str] = []
    for items in read_children(file, root):
        for one in items.iter("Item"):
            name = one.get("imageName", "")
            colour, kind = _named(_COLOURS, one.get("colorID")), _named(_TYPES, one.get("typeID"))
            unknown += [name] * (not colour or not kind)  # older copies have typeID 0
            found[name] = tuple((key, value) for key, value in (("colour", colour), ("type", kind)) if value)
    listing.noticed += in_bulk(f"{file}: pictures whose colour or type is no number of its lists", unknown)
    return found


def _named(names: tuple[str, ...], number: str | None) -> str:
    """Return the name of a number that counts from 1; empty for any other."""
    return names[int(number) - 1] if number and number.isdecimal() and 1 <= int(number) <= len(names) else ""


def read_vehicle_id(folder: Path) -> Listing:
    """Read VehicleID: the split train, and its test lists, smallest first, as test, test_1600, test_2400, ...

    Each list holds the smaller ones: a picture is in the split of the smallest list that has it, so that the list of
    1,600 vehicles is `test,test_1600`. The data set names no cameras.

    Args:
        folder: holds `image`, `train_test_split`, and `attribute` with img2vid.txt, color_attr.txt and model_attr.txt
            (without one, vehicles have no such attribute).

    Raises:
        DataError: a list is broken, or no picture can be used.
    """
    listing = Listing("vehicle_id")
    pictures = innermost_folder(require_file(folder / "image", "the folder of the pictures"))
    known = {"colour": _by_vehicle(folder, "color", listing), "model": _by_vehicle(folder, "model", listing)}
    for picture, (split, vehicle) in _listed(folder, listing).items():
        path = as_stored(pictures / f"{picture}.jpg")
        if is_file(path):
            attributes = tuple((key, of[vehicle]) for key, of in known.items() if vehicle in of)
            listing.samples.append(Sample(path, split, _CATEGORY, vehicle, attributes=attributes))
        else:
            listing.left_out.append(f"{path}: not found; extract it again")
    return finish(listing, folder, "its lists are empty; extract them again")


def _listed(folder: Path, listing: Listing) -> dict[str, tuple[str, str]]:
    """Return split and vehicle of each picture of VehicleID, by the smallest list that has it."""
    found: dict[str, tuple[str, str]] = {}
    for name in ("train_list", *_WANTED):
        file = folder / _ID_LISTS / f"{name}.txt"
        size = name.rpartition("_")[2]
        split = "train" if name == "train_list" else "test" if size == "800" else f"test_{size}"
        for line in read_lines(file) if file.is_file() else []:
            words = line.split()
            if len(words) == 2:
                found.setdefault(words[0], (split, words[1]))
            else:
                listing.left_out.append(f"{file}: found {line[:60]!r}, expected a picture and a vehicle")
    return found


def _by_vehicle(folder: Path, key: str, listing: Listing) -> Mapping[str, str]:
    """Return an attribute of the vehicles that have it: its name where the names are there, else its number."""
    file = next(
        (p for p in (folder / "attribute" / f"{key}_attr.txt", folder / f"{key}_attr.txt") if p.is_file()), None
    )
    if file is None:
        return {}
    names_file = file.with_name(f"{key}_names.txt")
    names: dict[str, str] = {}
    if names_file.is_file():
        pairs = (line.rsplit(maxsplit=1) for line in read_lines(names_file))
        names = {pair[1]: pair[0] for pair in pairs if len(pair) == 2}
    found = {}
    for line in read_lines(file):
        words = line.split()
        if len(words) == 2:
            found[words[0]] = names.get(words[1], words[1])
        else:
            listing.left_out.append(f"{file}: found {line[:60]!r}, expected a vehicle and a number")
    return found
