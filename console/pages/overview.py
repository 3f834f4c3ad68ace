"""The start page: what there is, and what waits for people."""

from __future__ import annotations

from console.web.routing import Answer, Call, Html, page


def _overview(call: Call) -> Answer:
    with call.services.database.read() as rows:
        sets = rows.execute("SELECT count(*) FROM sets").fetchone()[0]
        open_crops = rows.execute("SELECT count(*) FROM crops WHERE state = 'open'").fetchone()[0]
    return Html("overview.html", {"sets": sets, "open_crops": open_crops})


ROUTES = (page("/", "viewer", _overview),)
