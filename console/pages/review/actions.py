"""The API of the review: the queue of a set, decisions about its crops, and what follows of them."""

from __future__ import annotations

import secrets
import sqlite3

from console.access.audit import record
from console.pages.review import values
from console.review import accept, handover
from console.review.decisions import Decision, Named
from console.review.log import undo_row
from console.review.queue import Filters, Page, QueuedCrop, read_crops, read_folded, read_page, read_progress, unfold
from console.sets.sets import PictureSet, find_set
from console.web.routing import Answer, Call, Values, api
from edge.errors import ConsoleError

_NEAR = 30  # items that look like a crop, first among those that match what is typed
_ALIKE = 12  # decided crops of an item that are shown beside each other


def _crops(call: Call) -> Answer:
    set_id, query = call.path["set_id"], call.query
    with call.services.database.read() as rows:
        find_set(rows, set_id)
        if query.id is not None:
            found = Page(read_crops(rows, set_id, query.id), None)
        else:
            filters = Filters(tuple(dict.fromkeys(query.state)), query.category, query.item, query.text)
            found = read_page(rows, set_id, filters, query.order, query.after, query.limit)
        return Values(values.CropsValue(crops=_valued(call, rows, set_id, found.crops), after=found.after))


def _valued(call: Call, rows: sqlite3.Connection, set_id: int, crops: tuple[QueuedCrop, ...]) -> list[values.CropValue]:
    """Return crops with the proposals that what is decided now gives."""
    fresh = call.services.review.suggest(rows, set_id, [one.id for one in crops])
    return [values.CropValue.of(one, fresh.get(one.id, one.proposals)) for one in crops]


def _decide(call: Call) -> Answer:
    set_id, services = call.path["set_id"], call.services
    if call.body.by not in (None, call.user.name):
        raise ConsoleError("another_user", f"{call.body.by} decided this; log in as {call.body.by}: it is kept")
    decisions = [_decision(one) for one in call.body.decisions]
    outcomes = services.review.decide(call.now_s, call.user.name, set_id, decisions)
    with services.database.read() as rows:
        fresh = services.review.suggest(rows, set_id, call.body.shown)
        answer = values.DecisionsValue(
            outcomes=[values.OutcomeValue.of(one) for one in outcomes],
            proposals={key: [values.ProposalValue.of(p) for p in found] for key, found in fresh.items()},
            progress=_progress_value(call, rows, set_id),
        )
    return Values(answer)


def _decision(body: values.DecisionBody) -> Decision:
    if (body.state is None) == (body.undo is None):
        raise ConsoleError("invalid", f"decision {body.id}: give either `state` or `undo`")
    crops = tuple((one.id, one.version) for one in body.crops)
    if body.undo is not None or body.state is None:
        return Decision(body.id, crops, undo=body.undo)
    if not crops:
        raise ConsoleError("invalid", f"decision {body.id}: names no crop")
    return Decision(body.id, crops, Named(body.state, body.category, body.item, body.label))


def _progress_value(call: Call, rows: sqlite3.Connection, set_id: int) -> values.ProgressValue:
    task = call.services.tasks.find(f"propose/{set_id}")
    return values.ProgressValue.of(read_progress(rows, set_id), proposing=task is not None and task.state == "running")


def _progress(call: Call) -> Answer:
    with call.services.database.read() as rows:
        find_set(rows, call.path["set_id"])
        return Values(_progress_value(call, rows, call.path["set_id"]))


def _propose(call: Call) -> Answer:
    set_id = call.path["set_id"]
    if call.body.again:
        with call.services.database.write() as connection:
            record(connection, call.now_s, call.user.name, "review.propose", f"set {set_id}")
    task = call.services.review.start_proposing(set_id, again=call.body.again)
    return Values(values.TaskKeyValue(key=task.key, name=task.name), go="." if call.body.again else "")


def _folded(call: Call) -> Answer:
    set_id = call.path["set_id"]
    with call.services.database.read() as rows:
        crops = _valued(call, rows, set_id, read_folded(rows, set_id, call.path["crop_id"]))
    return Values(values.UnfoldedValue(crops=crops))


def _unfold(call: Call) -> Answer:
    set_id, crop_id = call.path["set_id"], call.path["crop_id"]
    with call.services.database.write() as connection:
        ids = unfold(connection, set_id, crop_id)
        record(connection, call.now_s, call.user.name, "review.unfold", f"crop {crop_id}", crops=len(ids))
    with call.services.database.read() as rows:
        return Values(values.UnfoldedValue(crops=_valued(call, rows, set_id, read_crops(rows, set_id, ids))))


def _items(call: Call) -> Answer:
    with call.services.database.read() as rows:
        about = find_set(rows, call.path["set_id"])
        known = call.services.review.known(rows, about.id, about.model)
        near = []
        if call.query.crop is not None:
            ranked = call.services.review.suggest(rows, about.id, [call.query.crop], _NEAR)
            near = [(one.category, one.item) for one in ranked.get(call.query.crop, ())]
        found = known.search(call.query.text, call.query.category, call.query.limit, near)
        categories = sorted({*known.categories(), *([about.category] if about.category else [])})
    items = [
        values.ItemValue(category=one.category, item=one.item, label=one.label, in_gallery=one.in_gallery)
        for one in found
    ]
    return Values(values.ItemsValue(items=items, categories=categories[:500]))


def _alike(call: Call) -> Answer:
    with call.services.database.read() as rows:
        find_set(rows, call.path["set_id"])
        found = rows.execute(
            "SELECT id FROM crops WHERE category = ? AND item = ? AND state = 'item' ORDER BY set_id != ?, "
            "fold IS NOT NULL, id DESC LIMIT ?",
            (call.query.category, call.query.item, call.path["set_id"], _ALIKE),
        )
        return Values(values.AlikeValue(crops=[row[0] for row in found]))


def _cells(call: Call) -> Answer:
    set_id = call.path["set_id"]
    with call.services.database.read() as rows:
        find_set(rows, set_id)
        cells = accept.count_cells(rows, set_id)
    return Values(
        values.CellsValue(
            cells=[
                values.CellValue(similarity=one.similarity, margin=one.margin, shown=one.shown, crops=one.crops)
                for one in cells
            ],
            bounds=[accept.upper_bound(wrong, accept.SAMPLE) for wrong in range(accept.SAMPLE + 1)],
        )
    )


def _draw(call: Call) -> Answer:
    set_id, body, services = call.path["set_id"], call.body, call.services
    seed = secrets.randbelow(2**31) if body.seed is None else body.seed
    with services.database.write() as connection:
        find_set(connection, set_id)
        drawn = accept.draw(connection, call.now_s, call.user.name, set_id, body.similarity, body.margin, seed)
        crops = read_crops(connection, set_id, drawn.sample)
    chosen = [values.CropValue.of(one, one.proposals) for one in crops]  # as they would be accepted
    return Values(values.SampleValue(id=drawn.id, seed=drawn.seed, crops=len(drawn.crops), sample=chosen))


def _rank(call: Call) -> Answer:
    with call.services.database.read() as rows:
        find_set(rows, call.path["set_id"])
    call.services.review.rank_now(call.path["set_id"])
    return Values({})


def _accept(call: Call) -> Answer:
    set_id = call.path["set_id"]
    with call.services.database.read() as rows:
        sample = accept.find_sample(rows, set_id, call.path["sample_id"])
    accept.check_looked_at(sample, call.body.looked_at)
    with call.services.database.write() as connection:
        record(
            connection, call.now_s, call.user.name, "review.accept", f"set {set_id}", sample=sample.id,
            similarity=sample.similarity, margin=sample.margin, seed=sample.seed, crops=len(sample.crops),
            wrong=len(call.body.wrong),
        )  # fmt: skip
    task = call.services.review.start_accepting(call.now_s, call.user.name, sample, call.body.wrong)
    return Values(values.TaskKeyValue(key=task.key, name=task.name))


def _undo(call: Call) -> Answer:
    with call.services.database.write() as connection:
        outcome = undo_row(
            connection, call.now_s, call.user.name, call.path["set_id"], call.path["row_id"], whole=call.body.whole
        )
    left = f"; {len(outcome.conflicts)} were changed since, and stay" if outcome.conflicts else ""
    return Values({}, says=f"Taken back: {len(outcome.stored)} decisions{left}.", go=".")


def _to_gallery(call: Call) -> Answer:
    from console.galleries.drafts import MOST_OPEN, add_pictures, count_open

    set_id, user = call.path["set_id"], call.user.name
    with call.services.database.write() as connection:
        about: PictureSet = find_set(connection, set_id)
        waiting = handover.read_waiting(connection, set_id)
        if not waiting:
            raise ConsoleError("invalid", f"all named things of {about.name} are in the gallery's drafts already")
        room = max(1, MOST_OPEN - count_open(connection))  # without any, the first one says so
        going, left = waiting[:room], len(waiting[room:])
        sent = handover.send(connection, going, lambda *item: add_pictures(connection, call.now_s, user, *item))
    things = f"{len(going)} item{'' if len(going) == 1 else 's'}"
    more = f" Then send the other {left:,} items." if left else ""
    return Values(
        {}, says=f"{sent} pictures of {things} are in the gallery's drafts; publish them there.{more}", go="/gallery"
    )


_SET = "/review/{set_id:int}"
ROUTES = (
    api("GET", f"{_SET}/crops", "viewer", _crops, "Crops of a set to review, page by page",
        query=values.CropsQuery, answer=values.CropsValue),
    api("GET", f"{_SET}/progress", "viewer", _progress, "How far the review of a set is", answer=values.ProgressValue),
    api("POST", f"{_SET}/decisions", "labeller", _decide, "Store decisions about crops, or take some back",
        body=values.DecisionsBody, answer=values.DecisionsValue),
    api("POST", f"{_SET}/propose", "labeller", _propose, "Look at crops that have no proposals, in the background",
        body=values.AgainBody, answer=values.TaskKeyValue),
    api("GET", f"{_SET}/crops/{{crop_id:int}}/folded", "viewer", _folded, "Near-duplicates that a crop stands for",
        answer=values.UnfoldedValue),
    api("POST", f"{_SET}/crops/{{crop_id:int}}/unfold", "labeller", _unfold, "Review near-duplicates apart",
        answer=values.UnfoldedValue),
    api("GET", f"{_SET}/items", "viewer", _items, "Items that a crop can be named as",
        query=values.ItemsQuery, answer=values.ItemsValue),
    api("GET", f"{_SET}/alike", "viewer", _alike, "Decided crops of an item",
        query=values.AlikeQuery, answer=values.AlikeValue),
    api("GET", f"{_SET}/cells", "viewer", _cells, "How many crops each similarity would accept",
        answer=values.CellsValue),
    api("POST", f"{_SET}/rank", "labeller", _rank, "Rank open crops by what was decided"),
    api("POST", f"{_SET}/samples", "labeller", _draw, "Draw a sample of the crops above a similarity",
        body=values.ThresholdBody, answer=values.SampleValue),
    api("POST", f"{_SET}/samples/{{sample_id:int}}/accept", "labeller", _accept,
        "Accept the best proposals of what a sample stands for", body=values.AcceptBody, answer=values.TaskKeyValue),
    api("POST", f"{_SET}/log/{{row_id:int}}/undo", "labeller", _undo, "Take a decision of the log back",
        body=values.UndoBody),
    api("POST", f"{_SET}/gallery", "operator", _to_gallery, "Put named crops into the drafts of the gallery"),
)  # fmt: skip
