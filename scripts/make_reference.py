"""Write docs/reference/ from the code: `make reference`. With --check, list the stale pages and exit with 1."""

from __future__ import annotations

import argparse
import ast
import inspect
import json
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))

from scripts.reference_text import code, model_sections, schema_sections, table  # noqa: E402

PAGES = ROOT / "docs/reference"
NOTE = "<!-- Made from the code by `make reference`. Edit the code, not this page. -->"


# Pages


def configuration() -> str:
    """The keys of a device's YAML file."""
    from edge.config import schema

    return (
        "# Configuration keys\n\n"
        "A device reads one YAML file. Write only the keys that differ from these defaults. An unknown key is an "
        "error that names the line and the nearest valid key. Relative paths are relative to the file's folder. "
        "`edge schema` prints the JSON Schema for your editor; `edge check -c FILE` checks a file.\n\n"
        "The file is a [DeviceConfig](#deviceconfig).\n\n"
        + model_sections(schema.DeviceConfig, schema)
        + "\n"
        + keys_from_afar()
    )


def keys_from_afar() -> str:
    """Which keys an operator may set from afar."""
    from edge.config.overlay_keys import ALLOWED, FORBIDDEN

    rows = [[code(".".join(path)), "yes"] for path in sorted(ALLOWED)]
    rows += [[code(".".join(path)), f"no: {reason}"] for path, reason in sorted(FORBIDDEN.items())]
    return (
        "## Keys that may be set from afar\n\n"
        "`edge-sync config publish` signs keys that devices use over their own file. A key counts with all below it; "
        "`*` is the name of a camera. In `cameras`, `zones` and `lines`, the value null removes an entry.\n\n"
        + table(["key", "from afar"], rows)
    )


def commands() -> str:
    """Every command, verb and flag."""
    from console.options import build_parser as console_parser
    from edge.options import build_parser as edge_parser
    from gallery_sync.cli import build_parser as sync_parser
    from quantize.cli import build_parser as quantize_parser
    from trainer.options import build_parser as train_parser

    parsers = [edge_parser("info"), train_parser(), quantize_parser(), sync_parser(), console_parser()]
    exits = (
        "Exit codes: 0 done, 1 an error in one line on stderr, 2 wrong usage. Answers go to stdout, logs to stderr.\n"
    )
    return "# Commands\n\n" + exits + "\n" + "\n".join("\n".join(parser_sections(one, "##")) for one in parsers)


def parser_sections(parser: argparse.ArgumentParser, level: str) -> Iterator[str]:
    """Write a parser and its verbs."""
    rows, verbs, help_of = [], [], {}
    for action in parser._actions:  # noqa: SLF001  argparse has no public way to list arguments
        if isinstance(action, argparse._SubParsersAction):  # noqa: SLF001
            verbs = list(action.choices.values())
            help_of = {f"{parser.prog} {one.dest}": one.help or "" for one in action._choices_actions}  # noqa: SLF001
        elif not isinstance(action, argparse._HelpAction | argparse._VersionAction):  # noqa: SLF001
            rows.append(argument_row(action))
    text = parser.description or ""
    yield f"{level} {code(parser.prog)}\n"
    if text:
        yield sentence(text) + "\n"
    if rows:
        yield table(["argument", "default", "meaning"], rows)
    for verb in verbs:
        verb.description = verb.description or help_of.get(verb.prog, "")
        yield from parser_sections(verb, "###" if level == "##" else level)


def sentence(text: str) -> str:
    """Return a help text as a sentence."""
    text = " ".join(text.split())
    return f"{text[0].upper()}{text[1:]}{'' if text.endswith('.') else '.'}"


def argument_row(action: argparse.Action) -> list[str]:
    """Write one argument."""
    name = ", ".join(code(flag) for flag in action.option_strings) or code(action.metavar or action.dest)
    if action.option_strings and action.nargs != 0:
        value = action.metavar or ("|".join(map(str, action.choices)) if action.choices else action.dest.upper())
        name += f" {code(value)}"
    if action.option_strings:
        shown = action.default is not False and action.default not in (None, argparse.SUPPRESS, [])
        default = "required" if action.required else code(action.default) if shown else ""
    else:
        default = "optional" if action.nargs in ("?", "*") else "required"
    text = (action.help or "") % {"default": action.default, "prog": ""} if action.help else ""
    if default == code(action.default):  # the default has its own column
        text = re.sub(r"[;,] default: \S+$|^default: \S+$", "", text)
    return [name, default, text]


def events_and_topics() -> str:
    """MQTT topics and the payloads on them."""
    from typing import get_args

    from edge.messaging.command import Verb

    verbs = ", ".join(code(verb) for verb in get_args(Verb))
    base = "<root>/<site>/<device>"
    rows = [
        [
            code(f"{base}/<camera>/events"),
            "out, QoS 1",
            "one JSON event per object and change of the answer: [Event](#event)",
        ],
        [code(f"{base}/<camera>/status"), "out, retained", "state of a camera: [Camera status](#camera-status)"],
        [
            code(f"{base}/<camera>/in_view"),
            "out, retained",
            "how many objects are in view, by item and category: [In view](#in-view)",
        ],
        [
            code(f"{base}/<camera>/snapshot"),
            "out, retained",
            "with `snapshots:`, a JPEG of the object that was recognised last, at most 100,000 bytes; empty: cleared",
        ],
        [code(f"{base}/<camera>/enabled/state"), "out, retained", "`ON` or `OFF`"],
        [code(f"{base}/<camera>/enabled/set"), "in", "`ON` or `OFF`: switch a camera"],
        [code(f"{base}/available"), "out, retained", "`online`, `stopped`, or `offline` (the last will)"],
        [code(f"{base}/birth"), "out, retained", "versions and cameras: [Device birth](#device-birth)"],
        [code(f"{base}/health"), "out", "every minute and on change: [Device health](#device-health)"],
        [code(f"{base}/cmd/<verb>"), "in", f"a [Command](#command); verbs: {verbs}"],
        [
            code(f"{base}/cmd/reply"),
            "out",
            "the [Reply](#reply) to a command; with MQTT 5 on a topic below, if the command names it",
        ],
        [
            code("<prefix>/<platform>/finesight-<site>-<device>/<entity>/config"),
            "out, retained",
            "with `mqtt.home_assistant`: Home Assistant discovery of one entity; empty: deleted",
        ],
        [
            code("<frigate_prefix>/events"),
            "out",
            "with `mqtt.frigate_mirror`: [Frigate event](#frigate-event); by default `frigate/events`",
        ],
    ]
    names = ("event", "in_view", "status", "birth", "health", "command", "reply", "frigate_event")
    return (
        "# Events and topics\n\n"
        "`<root>`, `<site>` and `<device>` are `mqtt.root`, `site` and `device` of the "
        "[configuration](configuration.md); `<camera>` is a camera's name.\n\n"
        + table(["topic", "direction", "payload"], rows)
        + "\n"
        + "\n".join(schema_sections(f"{name}.schema.json") for name in names)
    )


def counters_in_code() -> dict[str, set[str]]:
    """Return the names and labels of every counter that the runtime adds to."""
    found: dict[str, set[str]] = {}
    for path in sorted((ROOT / "edge").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "add"):
                continue
            if not node.args:
                continue
            first = node.args[0]
            choices = [first.body, first.orelse] if isinstance(first, ast.IfExp) else [first]
            for choice in choices:
                if isinstance(choice, ast.Constant) and isinstance(choice.value, str):
                    labels = {keyword.arg for keyword in node.keywords if keyword.arg}
                    found.setdefault(choice.value, set()).update(labels)
    return found


def metrics() -> str:
    """Prometheus metrics."""
    from edge.diagnostics import metrics
    from edge.telemetry.counters import COUNTER_HELP

    labels = counters_in_code()
    rows = [
        [code(f"finesight_{name}_total"), ", ".join(map(code, sorted(labels.get(name, ())))), text]
        for name, text in sorted(COUNTER_HELP.items())
    ]
    gauges = [
        [code(f"finesight_{name}"), ", ".join(map(code, sorted(of))), text] for name, text, of in gauges_of(metrics)
    ]
    return (
        "# Metrics\n\n"
        "With a `health:` section the device serves `/healthz` (200 while the frame loop runs), `/readyz` (200 "
        "while it recognises), `/status` (the [health report](events-and-topics.md#device-health)) and `/metrics` for "
        "Prometheus. The health report on MQTT holds the same counters.\n\n## Gauges and histograms\n\n"
        + table(["name", "labels", "meaning"], gauges)
        + "\n## Counters\n\nCounters start at 0 when the process starts.\n\n"
        + table(["name", "labels", "meaning"], rows)
    )


def gauges_of(module: ModuleType) -> list[tuple[str, str, set[str]]]:
    """Return name, text and labels of every gauge and histogram, from the calls and rows that make them."""
    found: dict[str, tuple[str, set[str]]] = {}
    for node in ast.walk(ast.parse(inspect.getsource(module))):
        if isinstance(node, ast.Call) and ast.unparse(node.func).endswith("MetricFamily") and len(node.args) == 2:
            name, text = (ast.unparse(argument).strip("f'\"") for argument in node.args)
            if "{name}" not in name:
                labels = {
                    one.value
                    for keyword in node.keywords
                    for one in ast.walk(keyword.value)
                    if isinstance(one, ast.Constant)
                }
                found[name.replace("{_PREFIX}_", "")] = (text, labels)
        if (
            isinstance(node, ast.Tuple)
            and len(node.elts) == 3
            and all(isinstance(e, ast.Constant) for e in node.elts[:2])
        ):
            name, text = (ast.literal_eval(element) for element in node.elts[:2])
            if isinstance(text, str) and text.endswith("."):
                found[name] = (text, set())
    return [(name, text, labels) for name, (text, labels) in sorted(found.items())]


def bundle() -> str:
    """The bundle folder and its manifest."""
    from edge.manifest import embedder, manifest, model, stages

    return (
        "# Bundle\n\n"
        "A bundle is a folder: `bundle.json`, the manifest; `models/*.onnx`; `probes/*.png`, the golden probes. The "
        "manifest lists every file with its size and SHA-256. It holds no code and no path outside the "
        "folder. Unknown keys are ignored, so an older device reads a newer manifest.\n\n"
        "`edge bundle verify FOLDER` checks every hash and runs the golden probes.\n\n"
        + model_sections(manifest.Manifest, manifest, stages, embedder, model)
    )


def gallery() -> str:
    """The gallery folder and its stores."""
    from edge.gallery import limits, store
    from edge.gallery.attributes import ATTRIBUTES
    from edge.gallery.store_file import TABLES

    return (
        "# Gallery\n\n"
        "A gallery generation is a folder: `gallery.json`, the index, and one SQLite store per category. Any text "
        "names a category; `edge.file_names` derives the name of its store, `<category>.sqlite` where that is safe. "
        "The generation's name is the hash of its contents. A store names its embedding space; a device searches "
        "it only with an embedder of the same space, or of a compatible one.\n\n"
        "## Index\n\n"
        + table(
            ["key", "meaning"],
            [
                [code("schema"), "1"],
                [code("generation"), "hash of the contents: the generation's name"],
                [code("created_at"), "ISO 8601, UTC"],
                [code("categories"), "map of category to [CategoryEntry](#categoryentry)"],
            ],
        )
        + "\n"
        + model_sections(store.CategoryEntry, store)
        + "\n## Store of one category\n\n```sql"
        + TABLES.rstrip()
        + "\n```\n\n`vector` holds int8; multiply by `scale` for the unit vector. `outline` holds the "
        "silhouette, 64x64 bits. "
        f'`metadata` is JSON; `"{limits.NEGATIVE}": true` marks an item that must not be named: '
        f'an object nearest to it has no match. `"{limits.ALSO}"` lists ids that an item had before or elsewhere: a '
        f'kiosk retires a taught item of such an id. `"{ATTRIBUTES}"` is an object of texts, such as '
        '`{"colour": "red"}`: what near items have in common is said of an object.\n\n'
        "A device checks all of a store when it reads it, and searches the whole gallery before it becomes active: a "
        "store holds these tables alone, each vector has about unit length, each item has a vector, and the counts are "
        f"those of the index. A category has at most {limits.MAX_ITEMS:,} items and {limits.MAX_VECTORS:,} vectors of "
        f"{limits.MAX_VECTOR_BYTES:,} numbers together; an id or label {limits.MAX_LABEL_CHARACTERS:,} characters, the "
        f"metadata {limits.MAX_METADATA_BYTES:,} bytes and {limits.MAX_METADATA_DEPTH} levels, a thumbnail "
        f"{limits.MAX_THUMBNAIL_BYTES:,} bytes of JPEG or PNG.\n"
    )


def errors() -> str:
    """Error classes, reason codes and exit codes."""
    from edge import errors as module
    from edge import types

    tree = (inspect.getdoc(module) or "").split("\n\n", 1)[1]
    reasons = [[code(value), text] for value, text in literal_comments(types, "Reason")]
    states = [[code(value), text] for value, text in literal_comments(types, "CameraState")]
    return (
        "# Errors and reasons\n\n"
        "A command that fails prints one line on stderr and exits with 1. The line says which thing is wrong, what is "
        "wrong with it, and what to do. A traceback is a bug: report it.\n\n"
        f"## Error classes\n\n```text\n{tree}\n```\n\n"
        "## Why an object has no match\n\nThe `reason` of an [event](events-and-topics.md#event).\n\n"
        + table(["reason", "meaning"], reasons)
        + "\n## Camera states\n\nThe `state` of a [camera status](events-and-topics.md#camera-status).\n\n"
        + table(["state", "meaning"], states)
    )


def literal_comments(module: ModuleType, name: str) -> list[tuple[str, str]]:
    """Return the values of a `Literal` and the comment behind each."""
    source = inspect.getsource(module)
    body = source.split(f"{name} = Literal[", 1)[1].split("\n]", 1)[0]
    return re.findall(r'"(\w+)",(?:\s*#\s*(.*))?', body)


PAGE_OF: dict[str, Callable[[], str]] = {
    "configuration.md": configuration,
    "cli.md": commands,
    "events-and-topics.md": events_and_topics,
    "metrics.md": metrics,
    "bundle.md": bundle,
    "gallery.md": gallery,
    "errors.md": errors,
}


def fleet_schemas() -> dict[Path, str]:
    """Return the JSON files that describe what a fleet's server takes and answers, and their text."""
    from gallery_sync.collector.api import openapi
    from gallery_sync.formats.reports import Answer, Reported, Request

    trees = {"fleet.openapi.json": openapi()}
    trees |= {f"fleet_{one.kind}.schema.json": one.model_json_schema() for one in (Reported, Request, Answer)}
    return {ROOT / "docs" / name: json.dumps(tree, indent=2) + "\n" for name, tree in trees.items()}


def console_description() -> dict[Path, str]:
    """Return the JSON file that describes the API of the console, and its text."""
    from console.web.openapi import openapi
    from console.web.routes import ROUTES

    return {ROOT / "docs" / "console.openapi.json": json.dumps(openapi(ROUTES), indent=2) + "\n"}


def pages() -> dict[Path, str]:
    """Return every page and every other file that is made from the code, and its text."""
    made = {PAGES / name: page() for name, page in PAGE_OF.items()}
    return (
        {path: f"{text.rstrip()}\n\n{NOTE}\n" for path, text in made.items()} | fleet_schemas() | console_description()
    )


def main(argv: list[str] | None = None) -> int:
    """Write the pages, or check them."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="change nothing; exit with 1 where a page is stale")
    check = parser.parse_args(argv).check
    made = pages().items()
    stale = {path: text for path, text in made if not path.exists() or path.read_text("utf-8") != text}
    for path, text in stale.items():
        if not check:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
        print(f"{path.relative_to(ROOT)}: {'stale; run `make reference`' if check else 'written'}")
    return 1 if check and stale else 0


if __name__ == "__main__":
    sys.exit(main())
