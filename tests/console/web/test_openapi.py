"""The description of the API."""

from __future__ import annotations

import json
import re

import jsonschema
import pytest

from console.web.openapi import openapi
from console.web.routes import ROUTES
from tests.console_samples import running_console


@pytest.fixture(scope="module")
def described():
    return openapi(ROUTES)


def operations(described):
    return [(path, method, one) for path, of_path in described["paths"].items() for method, one in of_path.items()]


def test_description_is_served(tmp_path, described):
    with running_console(tmp_path) as client:
        assert client.get("/api/v1/openapi.json").json == json.loads(json.dumps(described))


def test_schemas_are_valid_and_all_references_are_there(described):
    jsonschema.Draft202012Validator.check_schema({"$defs": described["components"]["schemas"]})
    for place in ("schemas", "responses"):
        named = re.findall(rf'"#/components/{place}/([^"]+)"', json.dumps(described))
        assert set(named) <= set(described["components"][place])


def test_every_route_of_the_api_is_described(described):
    found = {(method.upper(), path) for path, method, _ in operations(described)}
    assert found == {(one.method, re.sub(r":\w+}", "}", one.path)) for one in ROUTES if one.is_api}


def test_operations_have_a_summary_a_name_and_their_parameters(described):
    names = [one["operationId"] for _, _, one in operations(described)]
    assert len(names) == len(set(names))
    for path, _, one in operations(described):
        assert one["summary"], path
        declared = [(two["name"], two["in"]) for two in one["parameters"]]
        assert len(declared) == len(set(declared))
        assert {name for name, place in declared if place == "path"} == set(re.findall(r"{(\w+)}", path))
        for two in one["parameters"]:
            jsonschema.Draft202012Validator.check_schema(two["schema"])


def test_role_is_said(described):
    assert described["paths"]["/api/v1/users"]["post"]["description"] == "Needs the role admin."
    assert described["paths"]["/api/v1/login"]["post"]["security"] == []


def test_errors_are_described(described):
    responses = described["paths"]["/api/v1/users"]["post"]["responses"]
    assert {"200", "400", "401", "403", "404", "409", "413", "422", "429", "503"} <= set(responses)
    assert "500" not in responses
