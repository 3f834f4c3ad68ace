"""Routes of the area boxes."""

from __future__ import annotations

from console.web.routing import Route

ROUTES: tuple[Route, ...] = ()
