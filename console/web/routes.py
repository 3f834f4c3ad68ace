"""All routes of the console."""

from __future__ import annotations

from console.pages import account, boxes, exchange, fleet, gallery, overview, review, search, sets, tasks, training
from console.web.routing import Route

ROUTES: tuple[Route, ...] = (
    *overview.ROUTES,
    *sets.ROUTES,
    *boxes.ROUTES,
    *review.ROUTES,
    *gallery.ROUTES,
    *search.ROUTES,
    *training.ROUTES,
    *fleet.ROUTES,
    *exchange.ROUTES,
    *account.ROUTES,
    *tasks.ROUTES,
)
