"""Makes the folder that a device starts from: configurations, and a state folder with the activated pair."""

from __future__ import annotations

import json
import shlex
import shutil
from contextlib import suppress
from pathlib import Path

from edge.bundle.bundle import read_bundle
from edge.bundle.install import install_bundle, install_gallery
from edge.bundle.layout import SLOTS, slot_folder
from edge.bundle.slots import activate
from edge.durable import write_durably
from edge.errors import BundleError
from edge.file_names import hashed_file_name

KIOSK, CAMERA, STATE = "kiosk.yaml", "camera.yaml", "state"

_KIOSK = """\
# A kiosk that names what is held in front of its camera. Start it with: {run}
# Then open http://127.0.0.1:8090/ . All keys: configs/kiosk.yaml and docs/reference/configuration.md.
site: {site}
device: kiosk-1
state_dir: state # beside this file: the bundle, the gallery, and what people teach

cameras:
  counter:
    source: {source}
    framing: whole_frame # no detector: what is held still in front of the camera is the object

kiosk:
  camera: counter

recognition:
  min_looks: 2
  recheck_s: 2.0
"""

_CAMERA = """\
# A camera that publishes what it recognises. Start it with: {run}
# All keys: configs/camera.yaml and docs/reference/configuration.md.
site: {site}
device: camera-1
state_dir: state # beside this file: the bundle and the gallery

# mqtt: # events go to this broker; without it they are counted only
#   host: localhost

cameras:
  main:
    source: {source}
{framing}
health:
  host: 127.0.0.1
  port: 9464
"""
_WHOLE = "    framing: whole_frame # the bundle has no detector: one object fills the picture\n"
_DETECTED = "    # the bundle's detector finds the objects\n"


def install_pair(folder: Path, bundle: Path, gallery: Path) -> None:
    """Install a bundle and a gallery into the folder's state, and activate them.

    Raises:
        BundleError, GalleryError: they cannot be installed.
    """
    state = folder / STATE
    state.mkdir(parents=True, exist_ok=True)
    slot = install_bundle(bundle, state)
    activate(state, slot, install_gallery(gallery, state))


def last_sequence(folder: Path, bundle: Path) -> int:
    """Return the largest sequence number of the bundles in the folder's state and of this one; 0: none can be read."""
    last = 0
    for one in (bundle, *(slot_folder(folder / STATE, slot) for slot in SLOTS)):
        with suppress(BundleError):
            last = max(last, read_bundle(one, verify=False).manifest.sequence)
    return last


def write_configurations(folder: Path, name: str, source: str, *, detects: bool) -> list[str]:
    """Write kiosk.yaml and camera.yaml where they do not exist; people may have changed them.

    Args:
        folder: of the files.
        name: of the shop, any text.
        source: of the camera.
        detects: whether the bundle has a detector for camera.yaml.

    Returns:
        the names of files that stay as they are, though they would now be written otherwise.
    """
    framing = _DETECTED if detects else _WHOLE
    values = {"site": site_of(name), "source": json.dumps(source), "framing": framing}
    kept = []
    for file, text in ((KIOSK, _KIOSK), (CAMERA, _CAMERA)):
        path, wanted = folder / file, text.format(run=run_command(folder / file), **values).encode("utf-8")
        if not path.exists():
            write_durably(path, wanted)
        elif path.read_bytes() != wanted:
            kept.append(file)
    return kept


def run_command(configuration: Path) -> str:
    """Return the command that starts a device, ready to paste."""
    return f"edge run -c {shlex.quote(str(configuration))}"


def site_of(name: str) -> str:
    """Return a name for topics, of letters, digits and hyphens, that stands for any text."""
    return hashed_file_name(name).partition("~")[0]


def clear(*folders: Path) -> None:
    """Delete folders that an earlier run left."""
    for folder in folders:
        shutil.rmtree(folder, ignore_errors=True)
