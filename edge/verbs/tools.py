"""The verbs that need no running device: replay, recognise, bench, demo, init, find and schema."""

from __future__ import annotations

import argparse
import json
import os
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from edge.errors import BundleError, ConfigError, FinesightError
from edge.telemetry.known_secrets import hide, hide_in
from edge.verbs.device import config_of, state_dir_of

if TYPE_CHECKING:
    from edge.diagnostics.bench import Change
    from edge.recognition.pipeline import Pipeline


def replay(arguments: argparse.Namespace) -> int:
    """Recognise recorded video again, and print its events; return 0.

    Raises:
        FinesightError: it failed; the message says why.
    """
    from edge.build import load_active_models
    from edge.diagnostics.replay import replay
    from edge.frame_loop import build_pipeline
    from edge.messaging.payload import event_payload
    from edge.telemetry.counters import Counters

    config = config_of(arguments)
    models = load_active_models(config)

    def build(name: str) -> Pipeline:
        if name not in config.cameras:
            raise ConfigError(f"{arguments.config}: has no camera {name!r}, which was recorded; add it to `cameras`")
        return build_pipeline(models, config.recognition, {name: config.cameras[name]}, Counters())

    for number, event in enumerate(replay(arguments.folder, build, lambda name: config.cameras[name].max_px)):
        print(event_payload(event, config.site, config.device, "replay", number).decode())
    return 0


def recognise(arguments: argparse.Namespace) -> int:
    """Print what pictures show; return 1 if one could not be read.

    Raises:
        FinesightError: it failed; the message says why.
    """
    from edge.diagnostics.picture_report import describe_recognition, format_recognition, recognise_pictures
    from edge.recogniser import Recogniser

    if arguments.bundle is not None:
        recogniser = Recogniser.load(arguments.bundle, arguments.gallery)
    elif arguments.gallery is not None:
        raise ConfigError("--gallery needs --bundle; give both, or neither for the active ones")
    elif arguments.config is not None:
        recogniser = Recogniser.of_device(config_of(arguments))
    else:
        recogniser = Recogniser.of_state(state_dir_of(arguments))
    unreadable = False
    for picture, found in recognise_pictures(recogniser, arguments.pictures, arguments.framing):
        if isinstance(found, FinesightError):
            unreadable = True
            print(f"edge: {found}", file=sys.stderr)
        elif arguments.json:
            print(json.dumps(describe_recognition(picture, found), ensure_ascii=False), flush=True)
        else:
            print("\n".join(format_recognition(picture, found)), flush=True)
    return 1 if unreadable else 0


def bench(arguments: argparse.Namespace) -> int:
    """Print how long each stage takes; return 0.

    Raises:
        FinesightError: it failed; the message says why.
    """
    from edge.diagnostics.bench import BenchRequest, bench, compare
    from edge.diagnostics.bench_table import format_comparison, format_report

    request = BenchRequest(
        arguments.source,
        arguments.camera,
        arguments.framing,
        arguments.resize,
        arguments.frames,
        arguments.bundle,
        arguments.gallery,
    )
    config = config_of(arguments)
    if not arguments.compare:
        report = bench(config, request)
        print(json.dumps(hide_in(asdict(report)), indent=1) if arguments.json else hide(format_report(report)))
        return 0
    changes = [_change(words, pairs) for words, pairs in arguments.compare]
    comparison = compare(config, request, changes)
    print(json.dumps(hide_in(asdict(comparison)), indent=1) if arguments.json else hide(format_comparison(comparison)))
    return 0


def _change(words: str, pairs: dict[str, str]) -> Change:
    """Return what `--compare` changes: the files it names, read."""
    from edge.config.yaml_file import load_config
    from edge.diagnostics.bench import Change

    named = {key: pairs.get(key) for key in ("precision", "engine", "threads")}
    bundle, gallery = (Path(pairs[key]) if key in pairs else None for key in ("bundle", "gallery"))
    config = load_config(Path(pairs["config"]), os.environ) if "config" in pairs else None
    return Change(words, **named, bundle=bundle, gallery=gallery, config=config)


def demo(arguments: argparse.Namespace) -> int:
    """Run the demo; return its exit status.

    Raises:
        FinesightError: it failed; the message says why.
    """
    from edge.config.yaml_file import load_config
    from edge.demo.demo import demo
    from edge.extras import require_extra
    from edge.shipped.examples import shipped

    file = arguments.config or shipped("configs") / "demo.yaml"
    config = load_config(file, os.environ)
    if arguments.config is None:  # the shipped folder may be read-only
        config = config.model_copy(update={"state_dir": Path("build/demo").absolute()})
    if config.mqtt is None:  # it starts its own broker
        require_extra("demo")
    return demo(config, arguments.assets or shipped("demo"), arguments.sheet)


def init(arguments: argparse.Namespace) -> int:
    """Copy the examples into a folder; return 0.

    Raises:
        FinesightError: it failed; the message says why.
    """
    from edge.shipped.examples import copy_examples

    written, kept = copy_examples(arguments.folder)
    print(f"{arguments.folder}: {written} files written, {kept} kept as they were")
    return 0


def find(arguments: argparse.Namespace) -> int:
    """Find the objects of query pictures in a scene; return 0.

    Raises:
        FinesightError: it failed; the message says why.
    """
    from edge.bundle.bundle import read_bundle
    from edge.finder.find_in_file import find, parse_queries
    from edge.finder.finder import open_finder

    bundle = read_bundle(arguments.bundle)
    if bundle.manifest.finder is None:
        raise BundleError(
            f"{arguments.bundle}: holds no finder; train one with edge-train finder -c configs/train/demo-finder.yaml, "
            f"and add it with edge-quantize pack --base {arguments.bundle} --finder RUN"
        )
    finder = open_finder(bundle.folder, bundle.manifest.finder)
    found = find(finder, parse_queries(arguments.query), arguments.scene, arguments.out, arguments.known)
    print(json.dumps(found, indent=1))
    return 0


def schema(_: argparse.Namespace) -> int:
    """Print the JSON Schema of the configuration; return 0."""
    from edge.config.json_schema import json_schema

    print(json.dumps(json_schema(), indent=1))
    return 0
