"""The JSON Schema of the configuration file. The comments beside the fields of edge/config/schema.py describe its keys.

The comments are read from the source, so that each key is described in one place.
"""

from __future__ import annotations

import ast
import inspect
import io
import re
import tokenize
from types import ModuleType
from typing import Any

from edge.config import schema


def json_schema() -> dict[str, Any]:
    """Return the JSON Schema of the configuration file, with a description of every key."""
    document = schema.DeviceConfig.model_json_schema()
    comments = field_comments(schema)
    for name, described in {"DeviceConfig": document, **document["$defs"]}.items():
        fields = getattr(schema, name).model_fields
        for attribute, field in fields.items():
            text = re.sub(r"\bNone\b", "null", comments[name][attribute])
            described["properties"][field.alias or attribute]["description"] = text
    return document


def field_comments(module: ModuleType) -> dict[str, dict[str, str]]:
    """Return the comment of each annotated field by class: behind it on its line, or on the lines right above it."""
    text = inspect.getsource(module)
    comments, alone = {}, set()
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type == tokenize.COMMENT:
            comments[token.start[0]] = token.string.lstrip("# ")
            if not token.line[: token.start[1]].strip():
                alone.add(token.start[0])
    fields: dict[str, dict[str, str]] = {}
    for node in ast.parse(text).body:
        if not isinstance(node, ast.ClassDef):
            continue
        for field in node.body:
            if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name):
                above: list[str] = []
                line = field.lineno - 1
                while line in alone:
                    above.insert(0, comments[line])
                    line -= 1
                behind = [comments[field.end_lineno or 0]] if field.end_lineno in comments else []
                fields.setdefault(node.name, {})[field.target.id] = " ".join(above + behind)
    return fields
