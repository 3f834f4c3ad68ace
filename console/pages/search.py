"""Routes of the area search."""

from __future__ import annotations

from console.web.routing import Route

ROUTES: tuple[Route, ...] = ()
