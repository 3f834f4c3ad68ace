"""Anything may be sent to the API: schemathesis, by its description, to a console with users and pictures.

A second run knows what is there: a signed gallery, a held release, devices, pictures. It gets where guesses never do.
"""

from __future__ import annotations

import json
import os
import subprocess
import sysconfig
from dataclasses import replace
from datetime import datetime, timezone
from pathlib import Path

import cv2
import numpy as np
import pytest

from console.access.gate import COOKIE
from console.sets.pictures import add_picture
from console.sets.sets import create_set
from console.settings import Settings
from console.training.jobs import Jobs
from console.web.openapi import openapi
from console.web.routes import ROUTES
from edge.errors import ConsoleError, FinesightError
from gallery_sync.repository.publish import publish
from tests.console.access.access_samples import HERE, PASSWORD
from tests.console.fleet.fleet_samples import TOKEN as FLEET_TOKEN
from tests.console.fleet.fleet_samples import small_fleet
from tests.console.web.web_samples import add, console
from tests.console_galleries import make_repository, png, read_gallery
from tests.fleet_bundles import CATEGORY, ITEMS, write_bundle, write_gallery
from tests.sync_samples import keys_of

CHECKS = "status_code_conformance,content_type_conformance,response_schema_conformance"  # 500 is in no description
OWN_ID = 1000  # of the user and the session that the requests come from
# set this to try every limit of every field, in minutes: FINESIGHT_FUZZ_PHASES=coverage,fuzzing
PHASES = os.environ.get("FINESIGHT_FUZZ_PHASES", "fuzzing")
EXAMPLES = int(os.environ.get("FINESIGHT_FUZZ_EXAMPLES", "5"))
ONLY = os.environ.get("FINESIGHT_FUZZ_ONLY", "")  # a pattern of paths, such as /review/
SEED = os.environ.get("FINESIGHT_FUZZ_SEED", "1")
DEVICES = ("cam-0", "cam-1", "cam-2")
THERE = {  # of each name in the description: values that are there, and few that are not
    "category": [CATEGORY], "item": [*(f"item-{n}" for n in range(1, ITEMS)), "nobody"], "target": ["item-0"],
    "label": ["Red", "R\u00f6d <b>"], "metadata": ["{}", '{"sku": 12}'], "seen": [""], "choice": [""],
    "device": [*DEVICES, "cam-9"], "release": [1, 2], "revision": [0], "verb": ["sync", "prove"],
    "select": ["group=lab", "site=rome"], "waves": ["", "50"], "windows": [[], ["22:00-04:00"]], "deadline": [""],
    "canary": [1, 50], "soak": ["0s"], "way": ["similarity"], "silent_after": ["1h"], "exclude": [[], ["site=rome"]],
}  # fmt: skip
FILES = {"/api/v1/search": 1, "/api/v1/search/scene": 2, "/api/v1/gallery/drafts/add": 1}  # of a request
REACHED = {  # operations of the second run that guesses hardly ever get done; others depend on the order of requests
    "get_gallery_categories", "get_gallery_items", "get_gallery_drafts", "post_gallery_drafts_add", "post_search",
    "post_search_scene", "get_models", "get_fleet_devices", "get_fleet_devices_device",
    "post_fleet_devices_device_commands", "get_fleet_rollouts", "post_fleet_rollouts",
}  # fmt: skip
PICTURES = """
import schemathesis
from hypothesis import strategies as st
schemathesis.openapi.format("binary", st.sampled_from([bytes.fromhex(one) for one in {pictures!r}]))
"""


@pytest.fixture
def client(tmp_path, monkeypatch):
    """A console with two sets of two pictures, and three users; nothing is trained."""

    def start(*_, **__):
        raise ConsoleError("busy", "this test trains nothing")

    monkeypatch.setattr(Jobs, "start", start)
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    for n in range(4):
        cv2.imwrite(str(pictures / f"{n}.png"), np.full((48, 64, 3), 60 * n, np.uint8))
    with console(tmp_path / "data") as running:
        services = running.services
        for number, name in enumerate(("ann", "bob", "eve")):
            add(running, name, "admin" if number == 0 else "viewer")
        with services.database.write() as connection:
            for number in range(2):
                set_id = create_set(connection, services.clock(), "ann", f"set {number}", "folder", pictures)
                for n in range(2 * number, 2 * number + 2):
                    path = pictures / f"{n}.png"
                    add_picture(connection, services.clock(), set_id, path.name, path, whole=True)
        yield running


def session_of_ann(client):
    """Log in, and give user and session ids that no request will name by chance."""
    cookie = client.services.gate.log_in("ann", PASSWORD, HERE)
    with client.services.database.write() as connection:
        connection.execute("PRAGMA defer_foreign_keys=ON")
        connection.execute("UPDATE sessions SET id = ?, user_id = ?", (OWN_ID, OWN_ID))
        connection.execute("UPDATE users SET id = ? WHERE name = 'ann'", (OWN_ID,))
    return cookie


def description():
    """Return the description, with numbers in addresses that exist, and without tokens to guess."""
    described = openapi(ROUTES)
    del described["security"], described["components"]["securitySchemes"]
    for of_path in described["paths"].values():
        for operation in of_path.values():
            operation.pop("security", None)
            for one in operation["parameters"]:
                if one["in"] == "path" and one["schema"]["type"] == "integer":
                    one["schema"] |= {"minimum": 1, "maximum": 3}
    return described


def name_of(route):
    """Return the id of a route's operation."""
    return next(iter(next(iter(openapi([route])["paths"].values())).values()))["operationId"]


def with_known_values(described):
    """Let requests of a description name what is there."""
    schemas = described["components"]["schemas"]
    for path, operations in described["paths"].items():
        for operation in operations.values():
            for one in operation["parameters"]:
                one["schema"] = {"enum": THERE[one["name"]]} if one["name"] in THERE else one["schema"]
            for content in operation.get("requestBody", {"content": {}})["content"].values():
                of_body = content["schema"]
                of_body = schemas[of_body["$ref"].rpartition("/")[2]] if "$ref" in of_body else of_body
                known = {name: {"enum": THERE[name]} for name in of_body.get("properties", {}) if name in THERE}
                of_body.get("properties", {}).update(known)
                if path in FILES:
                    of_body["properties"]["files"] |= {"minItems": FILES[path], "maxItems": FILES[path]}
                    of_body["required"] = sorted({*of_body.get("required", ()), "files"})
    return described


@pytest.fixture
def full(tmp_path):
    """A console with a signed gallery, a held release and a fleet; and the operations that were done."""
    repo, now = make_repository(tmp_path), datetime.now(timezone.utc)
    bundle, gallery = write_bundle(tmp_path / "two", 2), write_gallery(tmp_path / "g2")
    publish(repo, keys_of(repo), now, bundle_folder=bundle, gallery_folder=gallery, hold=True)
    done: set[str] = set()
    refused: dict[str, str] = {}  # the last reason, by operation

    def noting(route):
        name = name_of(route)

        def handler(call):
            try:
                answer = route.handler(call)
            except FinesightError as error:
                refused[name] = str(error)
                raise
            done.add(name)
            return answer

        return replace(route, handler=handler)

    routes = tuple(noting(one) if one.is_api else one for one in ROUTES)
    with small_fleet(tmp_path / "fleet") as fleet:
        fleet.report_all(DEVICES)
        known = {
            "fleet": fleet.url,
            "fleet_token": FLEET_TOKEN,
            "repository": repo,
            "keys": repo.with_name("repo.keys"),
        }
        with console(tmp_path / "data", routes, Settings(tmp_path / "data", **known)) as client:
            read_gallery(client)
            add(client, "ann", "admin")
            yield client, done, refused


def test_what_is_there_is_reached_without_a_failure(full, tmp_path):
    client, done, refused = full
    made = [png(number, 0).hex() for number in range(2)]
    hooks = tmp_path / "pictures_of_the_run.py"
    hooks.write_text(PICTURES.format(pictures=[*made, "", "00"]))
    only = ONLY or "/(gallery|fleet|search|models)(/|$)"
    fuzz(
        client,
        tmp_path,
        with_known_values(description()),
        only,
        "positive",
        SCHEMATHESIS_HOOKS=hooks.stem,
        PYTHONPATH=str(tmp_path),
    )
    missing = set() if ONLY else REACHED - done
    assert missing == set(), str({name: refused.get(name, "refused before its handler") for name in missing})


def test_api_has_no_failure_and_no_undescribed_answer(client, tmp_path):
    fuzz(client, tmp_path, description(), ONLY)


def fuzz(client, tmp_path, described, only, mode="all", **environment):
    """Let schemathesis send what a description allows, and what it does not."""
    file = tmp_path / "openapi.json"
    file.write_text(json.dumps(described))
    (tmp_path / "schemathesis.toml").write_text("[phases.coverage]\nunexpected-methods = []\n")
    cookie = session_of_ann(client)
    command = [
        str(Path(sysconfig.get_path("scripts")) / "schemathesis"), "run", str(file), "--url", client.url,
        "--header", f"Cookie:{COOKIE}={cookie}", "--header", f"Origin:{client.url}",
        "--mode", mode, "--checks", CHECKS, "--phases", PHASES, "--max-examples", str(EXAMPLES), "--seed", SEED,
        "--no-shrink", "--continue-on-failure", "--generation-database", "none", "--workers", "1",
        "--suppress-health-check", "all", "--warnings", "off", "--exclude-operation-id", "post_logout",
        "--no-color", "--output-truncate", "true", "--request-timeout", "60",
    ]  # fmt: skip
    if only:
        command += ["--include-path-regex", only]
    found = subprocess.run(
        command, capture_output=True, text=True, timeout=600, cwd=tmp_path, check=False, env=os.environ | environment
    )
    (tmp_path / "report.txt").write_text(found.stdout + found.stderr)
    said = [
        line for line in found.stdout.splitlines() if line.startswith(("___", "- ", "    curl", "[")) or "Error" in line
    ]
    assert found.returncode == 0, "\n".join([*said[:60], found.stderr[-1000:]])
    assert client.services.gate.identify({}, cookie).name == "ann", "the run was logged out: it tested little"
    assert client.services.gate.counters.total("http_failures") == 0
