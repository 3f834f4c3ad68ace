"""All routes of the console."""

from __future__ import annotations

from console.pages import exchange, models, overview, tasks
from console.pages.account import routes as account
from console.pages.boxes import routes as boxes
from console.pages.fleet import routes as fleet
from console.pages.gallery import routes as gallery
from console.pages.review import routes as review
from console.pages.search import routes as search
from console.pages.sets import routes as sets
from console.pages.training import routes as training
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
