"""Routes of the area training: the pages. What changes something is in actions."""

from __future__ import annotations

import json
import threading
from collections import Counter
from collections.abc import Iterator
from typing import Annotated

from pydantic import BaseModel, Field

from console.pages.training import actions
from console.pages.training.values import how_to_sign, live_values, shown_command
from console.sets.sets import SetCounts, list_sets
from console.training.compare import LEAST, MOST, compare
from console.training.curves import overfitting, read_curves
from console.training.data_set import FEW_PER_ITEM, count_boxes, count_crops
from console.training.deliver import device_of, how_to_init, made_pair, publish_command, trained_models
from console.training.disk import folder_bytes, free_bytes
from console.training.job import Job
from console.training.learning import missing_trainer
from console.training.recipes import list_recipes, problem_of
from console.training.results import EVALUATION, PAGE, answers_of, bundle_of, form_tables, read_json, read_verdict
from console.training.wrong_answers import link
from console.web.routing import Answer, Call, Download, Event, Events, Html, Redirect, Route, page
from edge.errors import ConsoleError

_PAGE = 25  # jobs
_TICK_S, _ALIVE_S = 1.0, 10.0
_WRONG_SHOWN = 60  # answers on a page
Ids = Annotated[list[Annotated[int, Field(ge=0, lt=2**53)]], Field(max_length=100)]


class ListQuery(BaseModel):
    """Which jobs."""

    before: Annotated[int, Field(ge=0, lt=2**53)] | None = None


class NewQuery(BaseModel):
    """From which sets."""

    set: Ids = []
    recipe: Annotated[str, Field(max_length=100)] = ""


class CompareQuery(BaseModel):
    """Which jobs are compared."""

    job: Ids = []


class ResultQuery(BaseModel):
    """Which answers are shown."""

    outcome: Annotated[str, Field(pattern="^(wrong|unknown|right)$")] = "wrong"
    start: Annotated[int, Field(ge=0, le=100_000)] = 0


def _list(call: Call) -> Answer:
    jobs = call.services.jobs.listed(_PAGE + 1, call.query.before)
    return Html(
        "training/jobs.html",
        {
            "jobs": jobs[:_PAGE], "older": jobs[_PAGE - 1].id if len(jobs) > _PAGE else None,
            "free": free_bytes(call.services.settings.data), "install": missing_trainer(),
            "first": not call.query.before, "most": MOST,
        },
    )  # fmt: skip


def _new(call: Call) -> Answer:
    with call.services.database.read() as rows:
        sets = list_sets(rows)
        known = {one.set.id for one in sets}
        chosen = [one for one in call.query.set if one in known]
        crops, boxes = count_crops(rows, chosen), count_boxes(rows, chosen)
    recipes = list_recipes() if not missing_trainer() else ()
    problems = {one.name: problem_of(one.kind, boxes if one.purpose == "boxes" else crops) for one in recipes}
    return Html(
        "training/new.html",
        {
            "sets": sets, "chosen": chosen, "crops": crops, "boxes": boxes, "recipes": recipes, "problems": problems,
            "install": missing_trainer(), "recipe": call.query.recipe, "few": FEW_PER_ITEM,
            "name": _name_of([one for one in sets if one.set.id in chosen]),
        },
    )  # fmt: skip


def _job(call: Call) -> Answer:
    jobs, settings = call.services.jobs, call.services.settings
    job = jobs.find(call.path["id"])
    pair = made_pair(job)
    verdict = read_verdict(job)
    tools = {
        "pair": pair, "device": device_of(settings), "repository": settings.repository,
        "is_repository": settings.repository is not None and (settings.repository / "metadata").is_dir(),
        "signs": settings.keys is not None,
        "init": how_to_init(settings.repository) if settings.repository else "",
        "publish": shown_command(publish_command(settings, pair, hold=False)) if pair and settings.repository else "",
    }  # fmt: skip
    return Html(
        "training/job.html",
        {
            "job": job, "command": shown_command(job.argv), "live": live_values(jobs, job), "verdict": verdict,
            "size_bytes": folder_bytes(jobs.home(job.id)) if job.bytes is None else job.bytes,
            "models": trained_models(job) if job.state == "done" else [],
            "bundle": bundle_of(job) if job.state == "done" else None, "others": _other_models(call, job),
            "of": job.about.get("of"), "sign": how_to_sign(jobs, job), **tools,
        },
    )  # fmt: skip


def _other_models(call: Call, job: Job) -> list[Job]:
    """Return further jobs with models, to pack together."""
    if job.kind != "recipe" or job.state != "done":
        return []
    listed = call.services.jobs.listed(50)
    return [one for one in listed if one.id != job.id and one.kind == "recipe" and one.state == "done"]


def _events(call: Call) -> Answer:
    job = call.services.jobs.find(call.path["id"])
    return Events(_watched(call, job.id))


def _watched(call: Call, job_id: int) -> Iterator[Event | None]:
    """Yield the state of a job whenever it changed, until it has ended."""
    wait, last, quiet_s = threading.Event(), "", 0.0
    try:
        while True:
            job = call.services.jobs.find(job_id)
            text = json.dumps(live_values(call.services.jobs, job), ensure_ascii=False)
            if text != last:
                last, quiet_s = text, 0.0
                yield Event("job", text)
            elif quiet_s >= _ALIVE_S:
                quiet_s = 0.0
                yield None
            if job.is_over:
                return
            wait.wait(_TICK_S)
            quiet_s += _TICK_S
    except ConsoleError:  # it was deleted
        yield Event("gone", "{}")


def _result(call: Call) -> Answer:
    job = call.services.jobs.find(call.path["id"])
    verdict, bundle = read_verdict(job), bundle_of(job)
    outcome, start = call.query.outcome, call.query.start
    evaluation = read_json(job.folder / EVALUATION)
    listed = answers_of(job)
    answers = [one for one in listed if one.outcome == outcome]
    with call.services.database.read() as rows:
        linked = link(rows, answers[start : start + _WRONG_SHOWN], job.about.get("sets", ()))
    if verdict is None and bundle is None and not evaluation:
        return Redirect(f"/training/jobs/{job.id}")
    return Html(
        "training/result.html",
        {
            "job": job, "verdict": verdict, "forms": form_tables(bundle) if bundle else [], "outcome": outcome,
            "counts": Counter(one.outcome for one in listed), "linked": linked, "start": start,
            "total": len(answers), "shown": _WRONG_SHOWN,
            "unlinked": sum(one.crop_id is None for one in linked), "columns": _columns(evaluation),
            "overfits": [(one.name, words) for one in read_curves(job.folder) if (words := overfitting(one))],
            "has_page": (job.folder / "shop" / PAGE).is_file(), "has_html": (job.folder / "evaluation.html").is_file(),
        },
    )  # fmt: skip


def _columns(evaluation: dict[str, object]) -> list[tuple[str, list[tuple[str, str]]]]:
    """Return what `edge-train evaluate` measured, a column for each precision, in words."""
    columns = evaluation.get("columns")
    found = []
    for name, table in columns.items() if isinstance(columns, dict) else ():
        if not isinstance(table, dict):
            continue
        rows = [
            (words, f"{value:.1%}" if share else f"{value:.1f}")
            for words, path, share in (
                ("first answer right", ("end_to_end", "top_1", "mean"), True),
                ("right category", ("coarse", "accuracy", "mean"), True),
                ("nearest item right", ("retrieval", "recall_at_1", "mean"), True),
                ("time of one look, ms (median)", ("latency_ms", "p50"), False),
            )
            if isinstance(value := _at(table, path), (int, float))
        ]
        found.append((str(name), rows))
    return found


def _at(tree: object, path: tuple[str, ...]) -> object:
    for key in path:
        tree = tree.get(key) if isinstance(tree, dict) else None
    return tree


def _page_of_learn(call: Call) -> Answer:
    job = call.services.jobs.find(call.path["id"])
    for path in (job.folder / "shop" / PAGE, job.folder / "evaluation.html"):
        if path.is_file():
            return Download(f"{path.stem}-{job.id}.html", "application/octet-stream", path)
    raise ConsoleError("not_found", f"job {job.id} wrote no page")


def _log(call: Call) -> Answer:
    job = call.services.jobs.find(call.path["id"])
    text = call.services.jobs.log_tail(job.id, 20_000_000)
    return Download(f"job-{job.id}.txt", "text/plain; charset=utf-8", text.encode())


def _compare(call: Call) -> Answer:
    ids = list(dict.fromkeys(call.query.job))
    if not LEAST <= len(ids) <= MOST:
        raise ConsoleError("invalid", f"choose {LEAST} to {MOST} runs to compare")
    compared = compare([call.services.jobs.find(one) for one in ids])
    return Html("training/compare.html", {"compared": compared})


def _name_of(sets: list[SetCounts]) -> str:
    return " and ".join(one.set.name for one in sets[:2])[:60] if sets else ""


ROUTES: tuple[Route, ...] = (
    page("/training", "viewer", _list, ListQuery),
    page("/training/new", "viewer", _new, NewQuery),
    page("/training/compare", "viewer", _compare, CompareQuery),
    page("/training/jobs/{id:int}", "viewer", _job),
    page("/training/jobs/{id:int}/events", "viewer", _events),
    page("/training/jobs/{id:int}/result", "viewer", _result, ResultQuery),
    page("/training/jobs/{id:int}/page", "viewer", _page_of_learn),
    page("/training/jobs/{id:int}/log", "viewer", _log),
    *actions.ROUTES,
)
