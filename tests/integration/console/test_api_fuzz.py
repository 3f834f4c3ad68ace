"""Anything may be sent to the API: schemathesis, by its description, to a console with users and pictures."""

from __future__ import annotations

import json
import os
import subprocess
import sysconfig
from pathlib import Path

import cv2
import numpy as np
import pytest

from console.access.gate import COOKIE
from console.sets.pictures import add_picture
from console.sets.sets import create_set
from console.training.jobs import Jobs
from console.web.openapi import openapi
from console.web.routes import ROUTES
from edge.errors import ConsoleError
from tests.console.access.access_samples import HERE, PASSWORD
from tests.console.web.web_samples import add, console

CHECKS = "status_code_conformance,content_type_conformance,response_schema_conformance"  # 500 is in no description
OWN_ID = 1000  # of the user and the session that the requests come from
# by hand, with every limit of every field, in minutes: FINESIGHT_FUZZ_PHASES=coverage,fuzzing
PHASES = os.environ.get("FINESIGHT_FUZZ_PHASES", "fuzzing")
EXAMPLES = int(os.environ.get("FINESIGHT_FUZZ_EXAMPLES", "5"))
ONLY = os.environ.get("FINESIGHT_FUZZ_ONLY", "")  # a pattern of paths, such as /review/
SEED = os.environ.get("FINESIGHT_FUZZ_SEED", "1")


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


def test_api_has_no_failure_and_no_undescribed_answer(client, tmp_path):
    file = tmp_path / "openapi.json"
    file.write_text(json.dumps(description()))
    (tmp_path / "schemathesis.toml").write_text("[phases.coverage]\nunexpected-methods = []\n")
    cookie = session_of_ann(client)
    command = [
        str(Path(sysconfig.get_path("scripts")) / "schemathesis"), "run", str(file), "--url", client.url,
        "--header", f"Cookie:{COOKIE}={cookie}", "--header", f"Origin:{client.url}",
        "--checks", CHECKS, "--phases", PHASES, "--max-examples", str(EXAMPLES), "--seed", SEED,
        "--no-shrink", "--continue-on-failure", "--generation-database", "none", "--workers", "2",
        "--suppress-health-check", "all", "--warnings", "off", "--exclude-operation-id", "post_logout",
        "--no-color", "--output-truncate", "true", "--request-timeout", "60",
    ]  # fmt: skip
    if ONLY:
        command += ["--include-path-regex", ONLY]
    found = subprocess.run(command, capture_output=True, text=True, timeout=600, cwd=tmp_path, check=False)
    (tmp_path / "report.txt").write_text(found.stdout + found.stderr)
    said = [
        line for line in found.stdout.splitlines() if line.startswith(("___", "- ", "    curl", "[")) or "Error" in line
    ]
    assert found.returncode == 0, "\n".join([*said[:60], found.stderr[-1000:]])
    assert client.services.gate.identify({}, cookie).name == "ann", "the run was logged out: it tested little"
    assert client.services.gate.counters.total("http_failures") == 0
