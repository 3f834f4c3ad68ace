"""Routes of the area training that change something, and its API."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, field_validator

from console.access.audit import record
from console.pages.training.values import JobValue, curves_of, value_of
from console.training.deliver import PackRequest, start_evaluation, start_install, start_pack, start_publish
from console.training.job import Job
from console.training.learning import LearnRequest, start_learning
from console.training.recipes import RecipeRequest, start_recipe
from console.training.results import answers_of
from console.training.wrong_answers import link, look_at_pictures, make_evaluation_set
from console.web.routing import Answer, Call, Route, Values, api
from edge.errors import ConsoleError

Id = Annotated[int, Field(ge=0, lt=2**53)]
Name = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=80)]
_MOST_LINES = 50


class _Body(BaseModel):
    model_config = ConfigDict(extra="forbid")

    @field_validator("*", mode="after")
    @classmethod
    def _printable(cls, value: object) -> object:
        if isinstance(value, str) and not all(one.isprintable() or one in "\r\n\t" for one in value):
            raise ValueError("holds characters that cannot be printed")
        return value.strip() if isinstance(value, str) else value


class NoBody(_Body):
    """Nothing to say."""


class LearnBody(_Body):
    """From which sets, and how."""

    sets: Annotated[list[Id], Field(min_length=1, max_length=100)]
    name: Name
    minutes: Annotated[float, Field(gt=0, le=7 * 24 * 60, allow_inf_nan=False)] = 60.0
    weights: Literal["package", "hub", "file"] = "package"
    file: Annotated[str, Field(max_length=1000)] = ""  # of weights, on this server


class RecipeBody(_Body):
    """Which recipe, from which sets, with which keys."""

    sets: Annotated[list[Id], Field(max_length=100)] = []
    name: Name
    recipe: Annotated[str, Field(max_length=100)]
    epochs: Annotated[int, Field(ge=1, le=100_000)] | None = None
    batch: Annotated[int, Field(ge=2, le=100_000)] | None = None
    lr: Annotated[float, Field(gt=0, le=1000, allow_inf_nan=False)] | None = None
    weights: Literal["", "none", "package", "hub", "file"] = ""
    file: Annotated[str, Field(max_length=1000)] = ""
    keys: Annotated[str, Field(max_length=8000)] = ""  # lines KEY=VALUE


class PublishBody(_Body):
    """How to publish."""

    hold: bool = False


class PackBody(_Body):
    """What to pack."""

    name: Name
    others: Annotated[list[Id], Field(max_length=20)] = []
    precision: Literal["auto", "fp32"] = "auto"
    fallback_fp32: bool = False


class ListQuery(BaseModel):
    """Which jobs."""

    model_config = ConfigDict(extra="forbid")
    before: Id | None = None
    limit: Annotated[int, Field(ge=1, le=200)] = 50


class JobList(BaseModel):
    """The newest jobs."""

    jobs: list[JobValue]


class CurvesValue(BaseModel):
    """The curves of a job's runs."""

    runs: list[dict[str, object]]


def _listed(call: Call) -> Answer:
    jobs = call.services.jobs.listed(call.query.limit, call.query.before)
    return Values(JobList(jobs=[value_of(job) for job in jobs]))


def _one(call: Call) -> Answer:
    return Values(value_of(call.services.jobs.find(call.path["id"])))


def _curves(call: Call) -> Answer:
    return Values(CurvesValue(runs=curves_of(call.services.jobs.find(call.path["id"]))))


def _learn(call: Call) -> Answer:
    body, services = call.body, call.services
    weights = _weights(body.weights, body.file)
    request = LearnRequest(tuple(dict.fromkeys(body.sets)), body.name, body.minutes, weights)
    job = start_learning(services.settings, services.database, services.jobs, request, call.user.name)
    return _started(job)


def _recipe(call: Call) -> Answer:
    body, services = call.body, call.services
    lines = [line.strip() for line in body.keys.splitlines() if line.strip()]
    if len(lines) > _MOST_LINES:
        raise ConsoleError("invalid", f"keys: found {len(lines)} lines, expected at most {_MOST_LINES}")
    if wrong := next((line for line in lines if "=" not in line), None):
        raise ConsoleError("invalid", f"keys: {wrong[:80]!r} is not KEY=VALUE, such as optimiser.epochs=20")
    request = RecipeRequest(
        body.recipe, tuple(dict.fromkeys(body.sets)), body.name, body.epochs, body.batch, body.lr,
        _weights(body.weights, body.file), tuple(lines),
    )  # fmt: skip
    return _started(start_recipe(services.settings, services.database, services.jobs, request, call.user.name))


def _stop(call: Call) -> Answer:
    call.services.jobs.stop(call.path["id"], call.user.name)
    return Values(value_of(call.services.jobs.find(call.path["id"])), says="Stopping; what is done is kept", go=".")


def _resume(call: Call) -> Answer:
    job = call.services.jobs.resume(call.path["id"], call.user.name)
    return Values(value_of(job), says="Goes on where it was", go=f"/training/jobs/{job.id}")


def _delete(call: Call) -> Answer:
    job = call.services.jobs.find(call.path["id"])
    call.services.jobs.delete(job.id, call.user.name)
    return Values({}, says=f"Deleted {job.name}", go="/training")


def _install(call: Call) -> Answer:
    services = call.services
    job = services.jobs.find(call.path["id"])
    return _started(start_install(services.settings, services.jobs, job, call.user.name))


def _publish(call: Call) -> Answer:
    services = call.services
    job = services.jobs.find(call.path["id"])
    return _started(start_publish(services.settings, services.jobs, job, call.user.name, hold=call.body.hold))


def _pack(call: Call) -> Answer:
    body, services = call.body, call.services
    job = services.jobs.find(call.path["id"])
    others = tuple(services.jobs.find(one) for one in dict.fromkeys(body.others) if one != job.id)
    request = PackRequest(body.name, others, body.precision, body.fallback_fp32)
    return _started(start_pack(services.jobs, job, request, call.user.name))


def _evaluate(call: Call) -> Answer:
    return _started(start_evaluation(call.services.jobs, call.services.jobs.find(call.path["id"]), call.user.name))


def _collect(call: Call) -> Answer:
    """Make a set of the wrong answers whose pictures are in no set."""
    services, job = call.services, call.services.jobs.find(call.path["id"])
    answers = [one for one in answers_of(job) if one.outcome != "right"]
    with services.database.read() as rows:
        lost = [one.answer for one in link(rows, answers) if one.crop_id is None]
    if not lost:
        raise ConsoleError("invalid", "all these pictures are in sets already; follow the links")
    pictures = look_at_pictures(services.settings, lost)
    with services.database.write() as connection:
        name, by = f"Wrong answers of job {job.id}", call.user.name
        set_id = make_evaluation_set(connection, call.now_s, by, name, lost, pictures)
        record(connection, call.now_s, by, "job.collect", f"job {job.id}", set=set_id, pictures=len(pictures))
    return Values({"set": set_id}, says="Made a set of these pictures", go=f"/review/{set_id}")


def _started(job: Job) -> Values:
    says = "Started" if job.state == "running" else "It starts when its turn comes"
    return Values(value_of(job), says=f"{job.name}: {says.lower()}", go=f"/training/jobs/{job.id}", status=201)


def _weights(kind: str, file: str) -> str:
    if kind == "file" and not file:
        raise ConsoleError("invalid", "file: name the file of the weights on this server")
    return file if kind == "file" else kind


_JOB = "/jobs/{id:int}"

ROUTES: tuple[Route, ...] = (
    api("GET", "/jobs", "viewer", _listed, "The newest jobs", query=ListQuery, answer=JobList),
    api("GET", _JOB, "viewer", _one, "A job", answer=JobValue),
    api("GET", f"{_JOB}/curves", "viewer", _curves, "The curves of a job", answer=CurvesValue),
    api("POST", "/training/learn", "operator", _learn, "Learn from sets", body=LearnBody, answer=JobValue),
    api("POST", "/training/recipe", "operator", _recipe, "Train one model", body=RecipeBody, answer=JobValue),
    api("POST", f"{_JOB}/stop", "operator", _stop, "Stop a job", body=NoBody, answer=JobValue),
    api("POST", f"{_JOB}/resume", "operator", _resume, "Resume a job", body=NoBody, answer=JobValue),
    api("DELETE", _JOB, "operator", _delete, "Delete a job and its folder"),
    api(
        "POST",
        f"{_JOB}/install",
        "operator",
        _install,
        "Install its pair into the device",
        body=NoBody,
        answer=JobValue,
    ),
    api("POST", f"{_JOB}/publish", "operator", _publish, "Publish its pair", body=PublishBody, answer=JobValue),
    api("POST", f"{_JOB}/pack", "operator", _pack, "Pack its models into a bundle", body=PackBody, answer=JobValue),
    api("POST", f"{_JOB}/evaluate", "operator", _evaluate, "Evaluate its bundle", body=NoBody, answer=JobValue),
    api("POST", f"{_JOB}/collect", "labeller", _collect, "Make a set of its wrong answers", body=NoBody),
)
