"""All routes of the console."""

from __future__ import annotations

from console.pages import (
    account,
    boxes,
    exchange,
    fleet,
    gallery,
    models,
    overview,
    review,
    search,
    sets,
    tasks,
    training,
)
from console.web.openapi import description_route
from console.web.routing import Route

_AREAS: tuple[Route, ...] = (
    *overview.ROUTES,
    *sets.ROUTES,
    *boxes.ROUTES,
    *review.ROUTES,
    *gallery.ROUTES,
    *search.ROUTES,
    *models.ROUTES,
    *training.ROUTES,
    *fleet.ROUTES,
    *exchange.ROUTES,
    *account.ROUTES,
    *tasks.ROUTES,
)

ROUTES: tuple[Route, ...] = (*_AREAS, description_route(_AREAS))
