"""The pages and the API of training, with a trainer that takes no time."""

from __future__ import annotations

import json
import re
import threading
from dataclasses import replace

import pytest

from console.access.gate import User
from console.sets.sets import forget_set
from console.training.results import answers_of
from tests.console_samples import running_console
from tests.console_training import boxed_set, fake_trainer, fruit_set
from tests.waiting import DEADLINE_S


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("console")


@pytest.fixture(scope="module")
def client(folder):
    with pytest.MonkeyPatch.context() as patch:
        for module in ("learning", "recipes"):
            patch.setattr(f"console.training.{module}.TRAIN", fake_trainer(folder))
        settings = {"device": folder / "device", "folders": (folder / "pictures",)}
        with running_console(folder / "data", **settings) as client:
            yield client


@pytest.fixture
def pictures(folder, request):
    return folder / "pictures" / request.node.name[:40]


@pytest.fixture
def fruit(client, pictures):
    return fruit_set(client.services, pictures)


def learn(client, set_id, **fields):
    reply = client.send("POST", "/api/v1/training/learn", {"sets": [set_id], "name": "Fruit & co", **fields})
    assert reply.status == 201, reply.text
    return reply.json["id"]


def finish(client, job_id):
    job = client.services.jobs.find(job_id)
    (job.folder / "go").touch()
    return client.services.jobs.wait(job_id, DEADLINE_S)


@pytest.fixture(scope="module")
def learned_set(client, folder):
    return fruit_set(client.services, folder / "pictures/learned")


@pytest.fixture(scope="module")
def learned(client, learned_set):
    job_id = learn(client, learned_set)
    assert finish(client, job_id).state == "done"
    return job_id


def test_empty_page_says_what_to_do(client):
    assert "Nothing was trained here yet" in client.get("/training").text
    assert "No set to learn from" in client.get("/training/new").text


def test_page_says_how_to_install_the_trainer(client, fruit, monkeypatch):
    monkeypatch.setattr("console.training.learning.importlib.util.find_spec", lambda _: None)
    assert "finesight[learn]" in client.get("/training").text
    reply = client.send("POST", "/api/v1/training/learn", {"sets": [fruit], "name": "x"})
    assert (reply.status, reply.json["reason"]) == (503, "missing")


def test_page_counts_what_the_sets_hold(client, fruit, folder):
    text = client.get(f"/training/new?set={fruit}").text
    assert "6 crops of 2 items in 1 category" in text
    assert "there is one category; a classifier tells categories apart" in text
    assert "0 pictures have confirmed boxes; a detector needs 20" in text
    boxed = boxed_set(client.services, folder / "pictures/counted")
    assert "one named crop is not enough" in client.get(f"/training/new?set={boxed}").text.lower()


def test_learning_from_too_little_is_refused(client, pictures):
    before = client.services.jobs.listed()
    boxed = boxed_set(client.services, pictures)
    reply = client.send("POST", "/api/v1/training/learn", {"sets": [boxed], "name": "x"})
    assert (reply.status, "two are needed" in reply.json["error"]) == (422, True)
    assert client.services.jobs.listed() == before


def test_learned_recogniser_is_shown_with_its_wrong_answer(client, learned_set, learned):
    text = client.get(f"/training/jobs/{learned}/result").text
    assert "it names 95 rightly, says “I don&#39;t know” to 2, and names 2 wrongly (40 photos)" in text
    assert "No sign of overfitting" in text
    (crop,) = re.findall(rf'href="/review/{learned_set}\?crop=(\d+)"', text)
    with client.services.database.read() as rows:
        assert rows.execute("SELECT item FROM crops WHERE id = ?", (crop,)).fetchone()[0] == "apple"
    assert "62 % sure" in text
    assert "Make a set" not in text


def test_answers_of_an_evaluation_are_read_like_those_of_learn(client, learned, tmp_path):
    job = client.services.jobs.find(learned)
    answers = json.loads((job.folder / "shop/report.json").read_text())["answers"]
    assert answers
    (tmp_path / "evaluation.json").write_text(json.dumps({"columns": {}, "answers": answers}))
    assert answers_of(replace(job, folder=tmp_path)) == answers_of(job)
    (tmp_path / "evaluation.json").write_text(json.dumps({"answers": [{"path": 1}]}))
    assert answers_of(replace(job, folder=tmp_path)) == ()


def test_page_of_the_trainer_is_never_shown_as_a_page(client, learned):
    reply = client.get(f"/training/jobs/{learned}/page")
    assert reply.headers["content-type"] == "application/octet-stream"
    assert reply.headers["content-disposition"].startswith("attachment")


def test_log_and_names_are_escaped(client, learned):
    text = client.get(f"/training/jobs/{learned}").text
    assert "<b>bold</b>" not in text
    assert "Fruit &amp; co" in text
    live = json.loads(re.search(r'id="live">(.*?)</script>', text, re.DOTALL)[1])
    assert "<b>bold</b>" in live["log"]
    assert live["curves"][0]["columns"]["loss"] == [2.5, 1.25]


def test_name_that_looks_like_an_option_is_a_name(client, fruit):
    job_id = learn(client, fruit, name=" --weights")
    assert "--name=--weights" in client.services.jobs.find(job_id).argv
    assert finish(client, job_id).state == "done"


def test_events_tell_each_change_until_the_end(client, fruit, monkeypatch):
    monkeypatch.setattr("console.pages.training.routes._TICK_S", 0.02)
    job_id = learn(client, fruit)
    threading.Timer(0.2, finish, (client, job_id)).start()
    stream = client.get(f"/training/jobs/{job_id}/events").text
    found = [json.loads(line.partition(": ")[2]) for line in stream.splitlines() if line.startswith("data: ")]
    assert found[-1]["state"] == "done"
    assert found[-1]["curves"][0]["epochs"] == [1, 2]
    assert client.get("/training/jobs/99/events", accept="text/event-stream").status == 404


def test_stop_resume_and_delete(client, fruit):
    job_id = learn(client, fruit)
    folder = client.services.jobs.find(job_id).folder
    assert client.send("DELETE", f"/api/v1/jobs/{job_id}").status == 409
    assert client.send("POST", f"/api/v1/jobs/{job_id}/stop", {}).status == 200
    assert client.services.jobs.wait(job_id, DEADLINE_S).state == "stopped"
    assert "Resume" in client.get(f"/training/jobs/{job_id}").text
    assert client.send("POST", f"/api/v1/jobs/{job_id}/resume", {}).status == 200
    assert finish(client, job_id).state == "done"
    assert client.send("DELETE", f"/api/v1/jobs/{job_id}").json["go"] == "/training"
    assert not folder.exists()
    assert client.get(f"/training/jobs/{job_id}").status == 404


def test_recipe_is_checked_before_it_starts(client, fruit, folder):
    enough = fruit_set(client.services, folder / "pictures/enough", 5)

    def send(**fields):
        return client.send(
            "POST", "/api/v1/training/recipe", {"sets": [enough], "name": "x", "recipe": "embedder", **fields}
        )

    assert "optimiser.epoch: Extra inputs" in send(keys="optimiser.epoch=3").json["error"]
    assert "is not KEY=VALUE" in send(keys="epochs").json["error"]
    assert send(recipe="../demo").status == 404
    assert "the middle item has 3 pictures" in send(sets=[fruit]).json["error"]


def test_recipe_trains_and_is_compared_by_what_differs(client, pictures):
    set_id = fruit_set(client.services, pictures, 5)
    ids = []
    for epochs in (2, 3):
        body = {"sets": [set_id], "name": f"Run {epochs}", "recipe": "embedder", "epochs": epochs, "weights": "none"}
        reply = client.send("POST", "/api/v1/training/recipe", body)
        assert "--set optimiser.epochs=" in reply.json["command"]
        ids.append(reply.json["id"])
        assert finish(client, ids[-1]).state == "done"
    text = client.get(f"/training/compare?job={ids[0]}&job={ids[1]}").text
    assert "optimiser.epochs" in text
    assert "optimiser.batch" not in text
    assert "recall_1" in text
    assert client.get(f"/training/compare?job={ids[0]}").status == 422


@pytest.mark.parametrize("weights", ["/etc/passwd", "../../etc/passwd", "no such file"])
def test_weights_are_only_read_from_the_consoles_folders(client, learned_set, weights):
    body = {"sets": [learned_set], "name": "x", "weights": "file", "file": weights}
    assert client.send("POST", "/api/v1/training/learn", body).status in (403, 422)


@pytest.mark.parametrize(
    "body",
    [
        {"sets": [], "name": "x"}, {"sets": [2**60], "name": "x"}, {"sets": [1], "name": " "},
        {"sets": [1], "name": "a\u0000b"}, {"sets": [1], "name": "\ud800"}, {"sets": [1], "name": "x", "minutes": -1},
        {"sets": [1], "name": "x", "minutes": 1e400}, {"sets": [1], "name": "x", "more": 1}, [], None, "x",
    ],
)  # fmt: skip
def test_wrong_requests_are_refused(client, body):
    assert client.send("POST", "/api/v1/training/learn", body).status == 422


def test_pair_is_installed_by_the_commands_of_edge(client, learned, folder):
    text = client.get(f"/training/jobs/{learned}").text
    assert "It runs <strong>nothing yet</strong>" in text
    reply = client.send("POST", f"/api/v1/jobs/{learned}/install", {})
    command = reply.json["command"]
    assert command.startswith("edge bundle install ")
    assert f"&& edge bundle activate --state-dir {folder / 'device'}" in command
    job = client.services.jobs.wait(reply.json["id"], DEADLINE_S)
    assert job.state == "failed"  # the trainer's bundle is none
    assert "bundle" in job.says


def test_publishing_without_a_repository_says_what_to_do(client, learned):
    reply = client.send("POST", f"/api/v1/jobs/{learned}/publish", {})
    assert (reply.status, "--repo" in reply.json["error"]) == (503, True)


def test_pictures_that_are_in_no_set_become_one(client, fruit):
    job_id = learn(client, fruit)
    finish(client, job_id)
    with client.services.database.write() as connection:
        forget_set(connection, 1.0, "ann", fruit)
    assert "is in no set any more" in client.get(f"/training/jobs/{job_id}/result").text
    reply = client.send("POST", f"/api/v1/jobs/{job_id}/collect", {})
    assert reply.json["go"] == f"/review/{reply.json['set']}"
    with client.services.database.read() as rows:
        found = rows.execute("SELECT state, item FROM crops WHERE set_id = ?", (reply.json["set"],)).fetchall()
    assert [tuple(row) for row in found] == [("open", "apple"), ("open", "apple")]


@pytest.mark.parametrize(("role", "status"), [("viewer", 403), ("labeller", 403), ("operator", 422)])
def test_training_needs_an_operator(client, monkeypatch, role, status):
    monkeypatch.setattr("console.access.gate.Gate.identify", lambda *_: User("ann", role))
    body = {"sets": [99], "name": "x"}
    assert client.send("POST", "/api/v1/training/learn", body).status == status
