"""The last net for secrets: the exact values of the loaded configuration are removed from every text that leaves.

Other libraries write messages, and an exception's text may quote anything. Whoever reads a secret gives it to
`remember`; `hide` then removes it in every form that URLs, JSON, HTML and Python write. The values are kept for the
whole process, as logging is.
"""

from __future__ import annotations

import base64
import html
import json
import logging
import re
import sys
import threading
import traceback
from collections.abc import Iterable
from typing import Any
from urllib.parse import quote

from edge.redact import MARK, redact

_MIN_CHARACTERS = 4  # a shorter value occurs in any text
_ANYWHERE = 8  # characters from which on a value is also replaced inside a word
# To replace a word that our own messages use would tell that it is the password
_WORDS = re.compile(
    r"(?ix) admin(?:istrator)? | camera | demo | device | edge | events | finesight | front | guest | health | host"
    r"| kiosk | line | live | login | main | mqtt | none | null | o[nf]+line | open | pass(?:wd|word)? | recognition"
    r"| root | rtsps? | secret | site | state | stream | test | token | true | false | user"
)


def _worth_hiding(values: Iterable[str | None]) -> frozenset[str]:
    return frozenset(
        value for value in values if value and len(value) >= _MIN_CHARACTERS and not _WORDS.fullmatch(value)
    )


def _pattern(values: Iterable[str]) -> re.Pattern[str]:
    forms = {form for value in values for form in _forms(value)}
    return re.compile("|".join(map(_expression, sorted(forms, key=len, reverse=True))) or r"(?!)")


def _forms(value: str) -> set[str]:
    encoded = {quote(value, safe="", errors="replace"), quote(value, errors="replace")}
    encoded |= {form.replace("%20", "+") for form in encoded}
    encoded |= {re.sub(r"%[0-9A-F]{2}", lambda match: match[0].lower(), form) for form in encoded}
    written = {json.dumps(value)[1:-1], json.dumps(value, ensure_ascii=False)[1:-1], repr(value)[1:-1]}
    return {value, html.escape(value), base64.b64encode(value.encode(errors="replace")).decode()} | encoded | written


def _expression(form: str) -> str:
    return re.escape(form) if len(form) >= _ANYWHERE else rf"(?<![A-Za-z0-9]){re.escape(form)}(?![A-Za-z0-9])"


class _Known:
    """The values, and one pattern of all their forms."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._values: frozenset[str] = frozenset()
        self.pattern = _pattern(())

    def add(self, values: Iterable[str | None]) -> None:
        with self._lock:
            known = self._values | _worth_hiding(values)
            if known != self._values:
                self._values, self.pattern = known, _pattern(known)


_known = _Known()


def remember(values: Iterable[str | None]) -> None:
    """Hide these values from now on. Words shorter than 4 characters and the commonest words are not hidden."""
    _known.add(values)


def hide(text: str, more: Iterable[str | None] = ()) -> str:
    """Return a text without the remembered values, without more of them, and without what looks like a secret."""
    for pattern in (_known.pattern, _pattern(_worth_hiding(more))):
        text = pattern.sub(MARK, text)
    return redact(text)


def hide_in(value: Any) -> Any:
    """Return a JSON value with every text in it hidden as by `hide`; keys stay."""
    if isinstance(value, str):
        return hide(value)
    if isinstance(value, dict):
        return {key: hide_in(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [hide_in(item) for item in value]
    return value


class HidingFormatter(logging.Formatter):
    """Formats a log record, its traceback included, without secrets."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the finished text."""
        return hide(super().format(record))


def set_up_logging(level: str, line_format: str) -> None:
    """Log to stderr without secrets; exceptions that nobody catches are printed the same way."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(HidingFormatter(line_format))
    logging.basicConfig(level=level, handlers=[handler])
    # another hook, such as a test runner's, stays
    if sys.excepthook is sys.__excepthook__:
        sys.excepthook = lambda _kind, error, _traceback: _print_exception(error)
    if sys.unraisablehook is sys.__unraisablehook__:
        sys.unraisablehook = lambda unraisable: _print_exception(unraisable.exc_value)
    if threading.excepthook is threading.__excepthook__:
        threading.excepthook = lambda failed: _print_exception(failed.exc_value)


def _print_exception(error: BaseException | None) -> None:
    if error is not None and not isinstance(error, SystemExit):
        sys.stderr.write(hide("".join(traceback.format_exception(error))))
