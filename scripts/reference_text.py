"""Markdown for pages that are made from the code: tables, and JSON Schemas and typed documents in words."""

from __future__ import annotations

import inspect
import json
import re
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

from pydantic import BaseModel

from edge.config.json_schema import field_comments

DOCS = Path(__file__).parent.parent / "docs"

Json = dict[str, Any]


# Tables and text


def table(head: list[str], rows: list[list[str]]) -> str:
    """Return a Markdown table."""
    cells = [[placeholders_as_code(cell).replace("|", "\\|").replace("\n", " ") for cell in row] for row in rows]
    lines = [f"| {' | '.join(row)} |" for row in (head, ["---"] * len(head), *cells)]
    return "\n".join(lines) + "\n"


def code(value: object) -> str:
    """Return inline code."""
    return f"`{value}`"


def placeholders_as_code(text: str) -> str:
    """Return a text with patterns such as `cmd/<verb>` as inline code; Markdown takes a bare <verb> for HTML."""
    parts = re.split(r"(`[^`]*`)", text)
    parts[::2] = [re.sub(r"(?:[\w:./-]*<\w+>)+(?:[\w:./-]*\w)?", r"`\g<0>`", part) for part in parts[::2]]
    return "".join(parts)


def first_line(documented: object) -> str:
    """Return the first paragraph of a docstring, on one line."""
    return " ".join((inspect.getdoc(documented) or "").split("\n\n")[0].split())


# JSON Schema in words


def type_in_words(schema: Json, names: dict[str, str]) -> str:
    """Describe the values that a JSON Schema allows. `names` links the types that have a section of their own."""
    if "$ref" in schema:
        name = schema["$ref"].rsplit("/", 1)[1]
        return names.get(name, name)
    if "const" in schema or "enum" in schema:
        return " or ".join(code(json.dumps(value)) for value in schema.get("enum", [schema.get("const")]))
    if "anyOf" in schema or "oneOf" in schema:
        return " or ".join(type_in_words(one, names) for one in schema.get("anyOf", schema.get("oneOf")))
    if isinstance(kind := schema.get("type", "any"), list):
        return " or ".join(type_in_words(schema | {"type": one}, names) for one in kind)
    return structure_in_words(kind, schema, names)


def structure_in_words(kind: str, schema: Json, names: dict[str, str]) -> str:
    """Describe a list, a map, a number or a text."""
    if kind == "array":
        items = schema.get("items", {})
        return f"list of {type_in_words(items, names)}" if items else "list"
    values = [*schema.get("patternProperties", {}).values(), schema.get("additionalProperties")]
    if kind == "object" and isinstance(values[0], dict):
        return f"map of name to {type_in_words(values[0], names)}"
    return kind + limits(schema) if kind in ("integer", "number", "string") else kind


def limits(schema: Json) -> str:
    """Return the range of a number or the length of a text."""
    parts = [
        f"{word} {schema[key]:g}"
        for key, word in (("minimum", "≥"), ("exclusiveMinimum", ">"), ("maximum", "≤"), ("exclusiveMaximum", "<"))
        if key in schema
    ]
    return f" {' and '.join(parts)}" if parts else ""


def default_of(field: str, schema: Json, required: list[str]) -> str:
    """Return the default of a field."""
    if field in required:
        return "required"
    if "default" not in schema:
        return ""
    return (
        "its defaults"
        if isinstance(schema["default"], dict) and "$ref" in schema
        else code(json.dumps(schema["default"]))
    )


def model_sections(top: type[BaseModel], *modules: ModuleType) -> str:
    """Write one section for each class of some modules that a typed document is made of, the document itself first."""
    schema = top.model_json_schema(by_alias=True)
    definitions = {top.__name__: schema, **schema.get("$defs", {})}
    names = {name: f"[{name}](#{name.lower()})" for name in definitions if definitions[name].get("type") == "object"}
    paths = key_paths(top.__name__, definitions)
    written = []
    for name, one in definitions.items():
        model = next((vars(module)[name] for module in modules if name in vars(module)), None)
        if one.get("type") != "object" or model is None:
            continue
        documented: dict[str, str] = {}
        for parent in reversed(model.__mro__[: model.__mro__.index(BaseModel)]):
            documented |= field_comments(sys.modules[parent.__module__]).get(parent.__name__, {})
        aliases = {field.alias: attribute for attribute, field in model.model_fields.items() if field.alias}
        rows = [
            [
                code(field),
                type_in_words(of, names),
                default_of(field, of, one.get("required", [])),
                re.sub(r"\bNone\b", "`null`", documented.get(aliases.get(field, field), "")),
            ]
            for field, of in one.get("properties", {}).items()
        ]
        where = f" Key: {code(paths[name])}." if paths.get(name) else ""
        head = f"## {name}\n\n{first_line(model)}{where}\n\n"
        written.append(head + table(["key", "type", "default", "meaning"], rows))
    return "\n".join(written)


def key_paths(top: str, definitions: dict[str, Json]) -> dict[str, str]:
    """Return the dotted key under which each class first appears in the document."""
    paths, waiting = {top: ""}, [top]
    while waiting:
        name = waiting.pop(0)
        for field, schema in definitions[name].get("properties", {}).items():
            text = json.dumps(schema)
            for inner in re.findall(r'"#/\$defs/(\w+)"', text):
                if inner not in paths:
                    step = f"{field}.<name>" if '"object"' in text else f"{field}[]" if '"array"' in text else field
                    paths[inner] = f"{paths[name]}.{step}".lstrip(".")
                    waiting.append(inner)
    return paths


def schema_sections(name: str) -> str:
    """Write the section of one published JSON Schema."""
    schema = json.loads((DOCS / name).read_text(encoding="utf-8"))
    rows = [
        [
            code(field),
            type_in_words(of, {}),
            "yes" if field in schema.get("required", []) else "",
            of.get("description", ""),
        ]
        for field, of in schema["properties"].items()
    ]
    title = schema["title"].removeprefix("finesight ").capitalize()
    fields = table(["field", "type", "always there", "meaning"], rows)
    about = placeholders_as_code(schema["description"])
    return f"## {title}\n\n{about}\n\nSchema: [`{name}`](../{name}).\n\n{fields}"
