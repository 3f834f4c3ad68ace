"""Training in a browser: from a set to a watched job, its curves, its wrong answers, and what is done with it."""

from __future__ import annotations

import re

import pytest
from playwright.sync_api import expect

from tests.console_browser import logged_in, serious_findings
from tests.console_samples import running_console
from tests.console_training import fake_trainer, fruit_set
from tests.waiting import DEADLINE_S


@pytest.fixture
def client(tmp_path, monkeypatch):
    for module in ("learning", "recipes"):
        monkeypatch.setattr(f"console.training.{module}.TRAIN", fake_trainer(tmp_path))
    with running_console(tmp_path / "data", device=tmp_path / "device") as client:
        fruit_set(client.services, tmp_path / "fruit", 5)
        yield client


def reads(page, state):
    """Wait until the page, which reads itself again with each state of the job, shows this one, with its scripts."""
    page.locator(".badge", has_text=state).wait_for()
    page.wait_for_load_state("load")


def start(page, client):
    """Learn from the set, as a person does; return the job."""
    page.goto(f"{client.url}/training")
    page.get_by_role("link", name="Train from a set").click()
    page.get_by_role("checkbox", name=re.compile("10 named crops")).check()
    page.get_by_role("button", name="Count what they hold").click()
    assert serious_findings(page) == []
    page.get_by_label("Name Of the recogniser").fill("Fruit")
    page.get_by_role("button", name="Learn").click()
    page.wait_for_url("**/training/jobs/1")
    return client.services.jobs.find(1)


def test_training_is_watched_to_its_wrong_answers(browser, client):
    with logged_in(browser, client) as page:
        job = start(page, client)
        page.get_by_text("trained 1/2: 100%").first.wait_for()
        page.locator("#curves .uplot").first.wait_for()
        page.get_by_text("Numbers of trained").click()
        expect(page.get_by_role("rowheader", name="1", exact=True)).to_have_count(1)
        assert serious_findings(page) == []
        (job.folder / "go").touch()
        reads(page, "done")
        page.get_by_text("Numbers of trained").click()
        page.get_by_role("rowheader", name="2", exact=True).wait_for()
        page.wait_for_load_state("load")  # with its scripts
        page.keyboard.press("r")
        page.get_by_role("heading", name="How good is Fruit?").wait_for()
        assert serious_findings(page) == []
        page.get_by_role("link", name="Review the crop of Apple").click()
        page.wait_for_url(re.compile(r"/review/1\?crop=\d+"))


def test_stop_is_asked_in_a_dialog_and_resumed(browser, client):
    with logged_in(browser, client, 390, 844) as page:
        job = start(page, client)
        reads(page, "running")
        page.get_by_role("button", name="Stop…").press("Enter")
        expect(page.locator("dialog#stop").get_by_text("Resume")).to_have_count(1)
        assert serious_findings(page) == []
        page.get_by_role("button", name="Stop it").press("Enter")
        reads(page, "stopped")
        page.get_by_role("button", name="Resume").press("Enter")
        reads(page, "running")
        (job.folder / "go").touch()
        reads(page, "done")
        page.get_by_role("button", name="Install and activate…").click()
        expect(page.locator("dialog#install")).to_contain_text("runs nothing now")
        page.get_by_role("button", name="Leave it").click()
        page.get_by_role("button", name="Delete…").click()
        page.get_by_role("button", name="Delete it").click()
        page.get_by_text("Nothing was trained here yet").wait_for()
        assert not job.folder.exists()


def test_two_runs_are_compared(browser, client):
    jobs = client.services.jobs
    for epochs in (2, 3):
        body = {"sets": [1], "name": f"Run {epochs}", "recipe": "embedder", "epochs": epochs, "weights": "none"}
        job_id = client.send("POST", "/api/v1/training/recipe", body).json["id"]
        (jobs.find(job_id).folder / "go").touch()
        assert jobs.wait(job_id, DEADLINE_S).state == "done"
    with logged_in(browser, client) as page:
        page.goto(f"{client.url}/training")
        expect(page.get_by_role("button", name="Compare")).to_be_disabled()
        for name in ("Run 2", "Run 3"):
            page.get_by_role("checkbox", name=f"Compare {name}").check()
        assert serious_findings(page) == []
        page.get_by_role("button", name="Compare").click()
        page.locator("#curves .uplot").first.wait_for()
        expect(page.get_by_role("row", name="optimiser.epochs 3 2")).to_have_count(1)
        assert serious_findings(page) == []
