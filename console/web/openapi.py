"""Describes the JSON API in OpenAPI 3.1, from the table of routes."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from typing import Any, Literal

from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from console.web.bodies import LARGEST_NUMBER
from console.web.routing import API, Bytes, Call, Route, api
from edge import __version__

Json = dict[str, Any]
Mode = Literal["validation", "serialization"]
Names = dict[Any, str]  # of the schemas, by model and mode

_PART = re.compile(r"{(\w+)(?::(\w+))?}")
_ERRORS = {
    400: "The request is wrong",
    401: "Nobody who is known: log in, or send a token",
    403: "The role does not allow it, or a page of another server sent it",
    404: "There is none",
    408: "The body came too slowly",
    409: "Another change came first, or the name is taken",
    413: "Too large",
    415: "Not such a body, or no picture",
    421: "Another host was meant",
    422: "A value is wrong",
    429: "Too many: wait",
    503: "Not now: busy, or a part is missing",
    507: "The disk is full",
}
_WITH_BODY = (408, 413, 415)
_SAID: Json = {
    "says": {"type": "string", "description": "what was done, in one sentence"},
    "go": {"type": "string", "description": "the page to show next; empty: none"},
}
_NUMBER_KEYS = frozenset({"minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum"})


def description_route(routes: Iterable[Route]) -> Route:
    """Return the route that answers the description of others, and of itself."""

    def answer(_: Call) -> Bytes:
        return described

    route = api("GET", "/openapi.json", "viewer", answer, "This description", media="application/json")
    text = json.dumps(openapi([*routes, route]), separators=(",", ":"))
    described = Bytes(text.encode(), "application/json")
    return route


def openapi(routes: Iterable[Route]) -> Json:
    """Return the description of the routes below /api/v1."""
    described = [one for one in routes if one.is_api]
    models = _models_of(described)
    references, schemas = models_json_schema(models, ref_template="#/components/schemas/{model}")
    definitions: Json = {name: bounded(one) for name, one in schemas.get("$defs", {}).items()}
    by_model: Names = {key: one["$ref"].rpartition("/")[2] for key, one in references.items()}
    paths: Json = {}
    for route in described:
        operation = _operation(route, definitions, by_model)
        paths.setdefault(_PART.sub(r"{\1}", route.path), {})[route.method.lower()] = operation
    error = {"type": "object", "properties": {"reason": {"type": "string"}, "error": {"type": "string"}}}
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "finesight console",
            "version": __version__,
            "description": "What the pages of the console use. Make a token on the page of your account, and send it "
            "as `Authorization: Bearer <token>`.",
        },
        "security": [{"token": []}],
        "paths": paths,
        "components": {
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
            "schemas": {**_used(definitions, paths), "Error": {**error, "required": ["reason", "error"]}},
            "responses": {
                str(status): {
                    "description": text,
                    "content": {"application/json": {"schema": {"$ref": "#/components/schemas/Error"}}},
                }
                for status, text in _ERRORS.items()
            },
        },
    }


def _models_of(routes: Iterable[Route]) -> list[tuple[type[BaseModel], Mode]]:
    found: dict[tuple[type[BaseModel], Mode], None] = {}
    for one in routes:
        for model in (one.query, one.body):
            if model is not None:
                found[model, "validation"] = None
        if one.answer is not None:
            found[one.answer, "serialization"] = None
    return list(found)


def _used(definitions: Json, paths: Json) -> Json:
    """Return the definitions that paths refer to, directly or not."""
    used: set[str] = set()
    waiting = _named(paths)
    while waiting:
        used |= waiting
        waiting = set().union(*(_named(definitions[name]) for name in waiting)) - used
    return {name: one for name, one in definitions.items() if name in used}


def _named(tree: Json) -> set[str]:
    return set(re.findall(r'"#/components/schemas/([^"]+)"', json.dumps(tree)))


def _operation(route: Route, definitions: Json, by_model: Names) -> Json:
    operation: Json = {
        "operationId": _name_of(route),
        "summary": route.summary,
        "description": f"Needs the role {route.access}." if route.access != "anyone" else "Anyone may ask.",
        "tags": [route.path.removeprefix(f"{API}/").partition("/")[0].partition(".")[0]],
        "parameters": [_path_parameter(name, kind) for name, kind in _PART.findall(route.path)],
        "responses": {"200": {"description": route.summary, **_content(route, definitions, by_model)}},
    }
    if route.method == "POST" and route.answer is not None:
        operation["responses"]["201"] = operation["responses"]["200"]
    if route.access == "anyone":
        operation["security"] = []
    if route.query is not None:
        operation["parameters"] += _query_parameters(definitions[by_model[route.query, "validation"]])
    if (body := _body(route, definitions, by_model)) is not None:
        operation["requestBody"] = body
    statuses = [status for status in _ERRORS if body is not None or route.media or status not in _WITH_BODY]
    operation["responses"] |= {str(status): {"$ref": f"#/components/responses/{status}"} for status in statuses}
    return operation


def _name_of(route: Route) -> str:
    words = re.findall(r"\w+", _PART.sub(r"\1", route.path.removeprefix(API)))
    return "_".join([route.method.lower(), *words])


def _path_parameter(name: str, kind: str) -> Json:
    number = {"type": "integer", "minimum": 0, "maximum": LARGEST_NUMBER}
    schema = number if kind == "int" else {"type": "string", "minLength": 1}
    return {"name": name, "in": "path", "required": True, "schema": schema}


def _query_parameters(schema: Json) -> list[Json]:
    required = schema.get("required", [])
    return [
        {"name": name, "in": "query", "required": name in required, "schema": one}
        for name, one in schema.get("properties", {}).items()
    ]


def _content(route: Route, definitions: Json, by_model: Names) -> Json:
    """Return what a route answers, as far as its table says it."""
    if route.media:
        schema: Json = {} if "json" in route.media else {"type": "string", "format": "binary"}
        return {"content": {route.media: {"schema": schema}}}
    if route.answer is None and route.method == "GET":
        return {}
    name = by_model[route.answer, "serialization"] if route.answer is not None else ""
    model = definitions.get(name, {})
    definitions[f"{name}Said"] = {
        "type": "object",
        "properties": {**model.get("properties", {}), **_SAID},
        "required": [*model.get("required", []), *_SAID],
    }
    return {"content": {"application/json": {"schema": _reference(f"{name}Said")}}}


def _reference(name: str) -> Json:
    return {"$ref": f"#/components/schemas/{name}"}


def _body(route: Route, definitions: Json, by_model: Names) -> Json | None:
    name = by_model[route.body, "validation"] if route.body is not None else None
    fields = definitions[name] if name is not None else None
    if route.upload_bytes:
        file = {"type": "string", "format": "binary"}
        of_fields = (fields or {}).get("properties", {})
        form = {
            "type": "object",
            "properties": {**of_fields, "files": {"type": "array", "items": file}},
            "required": (fields or {}).get("required", []),
        }
        return {"required": True, "content": {"multipart/form-data": {"schema": form}}}
    if name is None or fields is None:
        return None
    return {"required": bool(fields.get("required")), "content": {"application/json": {"schema": _reference(name)}}}


def bounded(schema: Any) -> Any:
    """Return a JSON schema whose whole numbers have the bounds that the server checks for all of them."""
    if isinstance(schema, list):
        return [bounded(one) for one in schema]
    if not isinstance(schema, dict):
        return schema
    found = {key: bounded(one) for key, one in schema.items()}
    if found.get("type") in ("integer", "number") and not _NUMBER_KEYS & found.keys():
        return {**found, "minimum": -LARGEST_NUMBER, "maximum": LARGEST_NUMBER}
    return found
