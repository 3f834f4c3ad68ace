"""Renders pages from templates. Everything is escaped; times are shown in the reader's zone by the page's script."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timezone
from pathlib import Path
from typing import Any
from urllib.parse import quote

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from edge import __version__

TEMPLATES = Path(__file__).parents[1] / "templates"


def make_environment() -> Environment:
    """Return the environment of all templates: autoescape on, unknown names are errors."""
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES), autoescape=True, undefined=StrictUndefined, trim_blocks=True,
        lstrip_blocks=True,
    )  # fmt: skip
    environment.filters |= {"time": time_element, "day": day_element, "percent": percent, "count": count, "url": quote}
    environment.globals |= {"version": __version__}
    return environment


def render(environment: Environment, template: str, values: Mapping[str, Any]) -> str:
    """Return the text of a page."""
    return environment.get_template(template).render(**values)


def time_element(unix_s: float | None) -> Markup:
    """Return a `<time>` that the page's script writes in the reader's zone; a dash without a time."""
    return _time(unix_s, "%Y-%m-%d %H:%M UTC", "")


def day_element(unix_s: float | None) -> Markup:
    """Return a `<time>` of a day."""
    return _time(unix_s, "%Y-%m-%d", ' data-day="1"')


def percent(share: float | None, digits: int = 0) -> str:
    """Return a share, 0..1, such as `93 %`; a dash without one."""
    return "\N{EN DASH}" if share is None else f"{100 * share:.{digits}f} %"


def count(number: int, one: str, many: str = "") -> str:
    """Return a number with its noun: `1 picture`, `2,000 pictures`."""
    return f"{number:,} {one if number == 1 else many or one + 's'}"


def _time(unix_s: float | None, text: str, more: str) -> Markup:
    if unix_s is None:
        return Markup("\N{EN DASH}")
    try:
        moment = datetime.fromtimestamp(unix_s, timezone.utc)
    except (OverflowError, ValueError, OSError):
        return Markup("\N{EN DASH}")
    shown = moment.strftime(text)
    element = '<time datetime="{}"{}>{}</time>'
    return Markup(element).format(moment.isoformat(timespec="seconds"), Markup(more), shown)  # noqa: S704  ours
