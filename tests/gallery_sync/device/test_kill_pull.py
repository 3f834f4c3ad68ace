"""A pull that is killed leaves what serves alone, and the next one goes on; `tests.torture.kill_pull` does many."""

from tests.torture.kill_pull import torture


def test_killed_pulls_leave_what_serves_and_converge(tmp_path):
    ended = torture(tmp_path, kills=3, seed=1)
    assert ended["killed"] + ended["ended before"] == 3
    assert ended["killed"]
