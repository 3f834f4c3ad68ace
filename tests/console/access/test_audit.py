"""Pages of the audit log."""

from __future__ import annotations

import pytest

from console.access.audit import AuditQuery, find_page, names_in, record
from edge.errors import ConsoleError
from tests.console.access.access_samples import door


def fill(connection):
    for n in range(250):
        record(connection, 1000.0 + n // 10, "ann" if n % 2 else "bob", f"act.{n % 5}", f"thing {n}", n=n)


def all_pages(it, **query):
    """Return the numbers of all rows, page after page."""
    found, before = [], ""
    while True:
        page = it.see(find_page, AuditQuery(before=before, limit=7, **query))
        found += [row.details["n"] for row in page.rows]
        if not page.next:
            return found
        before = page.next


def test_pages_hold_each_row_once_newest_first(tmp_path):
    with door(tmp_path) as it:
        it.do(fill)
        assert all_pages(it) == list(range(249, -1, -1))


def test_rows_are_found_by_user_action_and_time(tmp_path):
    with door(tmp_path) as it:
        it.do(fill)
        assert all_pages(it, by="ann", action="act.3") == [n for n in range(249, -1, -1) if n % 2 and n % 5 == 3]
        assert all_pages(it, since_s=1005.0, until_s=1007.0) == list(range(69, 49, -1))
        assert all_pages(it, by="nobody") == []


def test_names_and_actions_are_listed_once(tmp_path):
    with door(tmp_path) as it:
        assert it.see(names_in, "by") == []
        it.do(fill)
        assert it.see(names_in, "by") == ["ann", "bob"]
        assert it.see(names_in, "action") == [f"act.{n}" for n in range(5)]


def test_queries_use_an_index(tmp_path):
    with door(tmp_path) as it:
        for where in ("by = 'x' AND", "action = 'x' AND", ""):
            statement = f"EXPLAIN QUERY PLAN SELECT * FROM audit WHERE {where} at < 9 ORDER BY at DESC, id DESC LIMIT 9"
            plan = it.see(lambda rows, text=statement: [row["detail"] for row in rows.execute(text)])
            assert len(plan) == 1
            assert "USING INDEX" in plan[0]


def test_hostile_position_is_refused(tmp_path):
    with door(tmp_path) as it:
        for before in ("x", "1", "nan-1", "1-2-x", "inf-3", "1-99999999999999999999"):
            with pytest.raises(ConsoleError, match="next"):
                it.see(find_page, AuditQuery(before=before))
