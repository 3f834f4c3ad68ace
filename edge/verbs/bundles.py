"""The verbs of installed bundles and galleries."""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from edge.verbs.device import device_of, state_dir_of

if TYPE_CHECKING:
    from edge.bundle.active_pointer import ActivePointer


def bundle_list(arguments: argparse.Namespace) -> int:
    """Print the installed bundles; return 0.

    Raises:
        FinesightError: it failed; the message says why.
    """
    from edge.diagnostics.installed import describe_bundles, format_bundles

    state_dir = state_dir_of(arguments)
    return _print_answer(arguments, describe_bundles(state_dir), "\n".join(format_bundles(state_dir)))


def bundle_verify(arguments: argparse.Namespace) -> int:
    """Check a bundle folder and its golden probes; return 0.

    Raises:
        FinesightError: it failed; the message says why.
    """
    from edge.bundle.prove import prover

    for line in prover()(arguments.folder, None):
        print(line)
    return 0


def bundle_prove(arguments: argparse.Namespace) -> int:
    """Choose the fastest engine and form of each model; return 0.

    Raises:
        FinesightError: it failed; the message says why.
    """
    from edge.build import build_gpu_engines
    from edge.diagnostics.engine_report import describe_choice, format_choice, prove_engines
    from edge.recognition.chosen_engines import proof_options
    from edge.telemetry.counters import Counters

    device = device_of(arguments)
    options, gpu = proof_options(device.engine, device.state_dir), build_gpu_engines(device, Counters())
    choice = prove_engines(device.state_dir, arguments.bundle, options, gpu.prepare_trial)
    return _print_answer(arguments, describe_choice(choice), "\n".join(format_choice(choice)))


def bundle_install(arguments: argparse.Namespace) -> int:
    """Copy a bundle into the inactive slot; return 0.

    Raises:
        FinesightError: it failed; the message says why.
    """
    from edge.bundle import slots
    from edge.bundle.active_pointer import edge_command, read_active_pointer
    from edge.bundle.install import install_bundle, install_gallery

    state_dir = state_dir_of(arguments)
    slot = install_bundle(arguments.folder, state_dir)
    result, activate = {"slot": slot}, f"bundle activate {slot}"  # with the active gallery
    if arguments.gallery is None and read_active_pointer(state_dir) is None:
        activate += " --gallery GENERATION"
    if arguments.gallery is not None:
        result["gallery"] = install_gallery(arguments.gallery, state_dir)
        slots.stage(state_dir, slot, result["gallery"])
        activate = "bundle activate"
    held = " with gallery ".join([f"slot {slot}", *list(result.values())[1:]])
    return _print_answer(arguments, result, f"installed in {held}; to use it, run: {edge_command(activate, state_dir)}")


def bundle_activate(arguments: argparse.Namespace) -> int:
    """Activate an installed bundle and gallery; return 0.

    Raises:
        FinesightError: it failed; the message says why.
    """
    from edge.build import build_gpu_engines, device_prover
    from edge.bundle import slots
    from edge.telemetry.counters import Counters

    device = device_of(arguments)
    prove = device_prover(device, build_gpu_engines(device, Counters()))
    return _print_active(arguments, slots.activate(device.state_dir, arguments.bundle, arguments.gallery, prove))


def bundle_rollback(arguments: argparse.Namespace) -> int:
    """Activate the previous bundle and gallery again; return 0.

    Raises:
        FinesightError: it failed; the message says why.
    """
    from edge.bundle import slots

    return _print_active(arguments, slots.rollback(state_dir_of(arguments)))


def _print_active(arguments: argparse.Namespace, active: ActivePointer) -> int:
    line = f"bundle {active.bundle_id} in slot {active.slot} is active with gallery {active.gallery}"
    return _print_answer(arguments, {"serving": active.model_dump()}, line)


def gallery_status(arguments: argparse.Namespace) -> int:
    """Print how many items the active gallery has; return 0.

    Raises:
        FinesightError: it failed; the message says why.
    """
    from edge.bundle import slots
    from edge.diagnostics.installed import describe_gallery, format_gallery

    _, gallery = slots.read_active(state_dir_of(arguments))
    return _print_answer(arguments, describe_gallery(gallery), "\n".join(format_gallery(gallery)))


def gallery_cut(arguments: argparse.Namespace) -> int:
    """Cut the gallery of a smaller embedder out of a stored one; return 0.

    Raises:
        FinesightError: it failed; the message says why.
    """
    from edge.bundle.bundle import read_bundle
    from edge.gallery.cut import cut_gallery
    from edge.gallery.generation import read_gallery
    from edge.inference.stages import load_stages

    bundles = [read_bundle(folder) for folder in (arguments.whole, arguments.bundle)]
    whole, part = (load_stages(one.folder, one.manifest, "onnxruntime").embedders for one in bundles)
    gallery, cut = cut_gallery(read_gallery(arguments.gallery), whole, part, arguments.out)
    result = {"gallery": gallery.generation, "categories": [asdict(one) for one in cut]}
    lines = [f"{one.category}: {one.items} items, {one.numbers} of {one.before} numbers a vector" for one in cut]
    return _print_answer(arguments, result, "\n".join([f"{arguments.out}: gallery {gallery.generation}", *lines]))


def _print_answer(arguments: argparse.Namespace, value: dict[str, Any], text: str) -> int:
    print(json.dumps(value, indent=1) if arguments.json else text)
    return 0
