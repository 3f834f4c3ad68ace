"""The policy file, its windows and its gates."""

from __future__ import annotations

import time
from dataclasses import replace
from datetime import datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge.errors import ConfigError
from gallery_sync.agent.doors import skipped_before
from gallery_sync.agent.gates import Surroundings, why_not_download, why_not_install
from gallery_sync.agent.machine import Target
from gallery_sync.agent.policy import Policy, read_policy
from gallery_sync.device.permit import Permit
from gallery_sync.formats.windows import DAYS, parse_window, why_closed

SATURDAY = datetime(2026, 11, 28, tzinfo=timezone.utc)


def at(day: int, hour: int, minute: int = 0) -> datetime:
    """A time on a day of that week, 0 is Monday."""
    return SATURDAY + timedelta(days=day - 5, hours=hour, minutes=minute)


@pytest.mark.parametrize(
    ("text", "inside", "outside"),
    [
        ("02:00-05:00", [at(0, 2), at(6, 4, 59)], [at(0, 1, 59), at(0, 5)]),
        ("22:00-06:00", [at(0, 22), at(1, 0), at(1, 5, 59)], [at(0, 21, 59), at(0, 6)]),
        ("Sat,Sun 02:00-05:00", [at(5, 2), at(6, 3)], [at(4, 3), at(0, 3)]),
        ("Fri 22:00-06:00", [at(4, 23), at(5, 5)], [at(4, 5), at(5, 23)]),
        ("Sun 22:00-06:00", [at(6, 23), at(0, 5)], [at(6, 5)]),
        ("Fri-Mon 00:00-24:00", [at(4, 0), at(5, 23, 59), at(0, 12)], [at(1, 12), at(3, 23, 59)]),
    ],
)
def test_window_is_open_in_its_time(text, inside, outside):
    window = parse_window(text)
    assert [window.is_open(time) for time in inside] == [True] * len(inside)
    assert [window.is_open(time) for time in outside] == [False] * len(outside)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "always",
        "2:00-5:00",
        "02:00-02:00",
        "25:00-26:00",
        "02:60-03:00",
        "Caturday 02:00-05:00",
        "Mon Tue 02:00-05:00",
    ],
)
def test_wrong_window_is_refused(text):
    with pytest.raises(ValueError, match="found the window"):
        parse_window(text)


@given(st.text(max_size=40))
def test_any_text_is_a_window_or_refused(text):
    try:
        window = parse_window(text)
    except ValueError:
        return
    assert window.days <= set(range(7))


def test_every_minute_of_the_week_is_in_or_out():
    window = parse_window("Wed 23:00-01:00")
    week = [at(0, 0) + timedelta(minutes=n) for n in range(7 * 24 * 60)]
    assert sum(map(window.is_open, week)) == 120


def test_c5_times_are_local():
    """A change of the clocks moves a window with the wall clock."""
    summer, winter = timezone(timedelta(hours=2)), timezone(timedelta(hours=1))
    window = parse_window("02:00-05:00")
    assert window.is_open(datetime(2026, 10, 25, 2, 30, tzinfo=summer))
    assert window.is_open(datetime(2026, 10, 25, 2, 30, tzinfo=winter))


def test_c5_window_in_the_hour_that_clocks_skip_is_open_after_it(monkeypatch):
    """Clocks go from 02:00 to 03:00 on a Sunday, on which many choose 02:00-03:00."""
    monkeypatch.setenv("TZ", "CET-1CEST,M3.5.0,M10.5.0/3")
    time.tzset()
    try:
        night = datetime(2027, 3, 28, 0, 50, tzinfo=timezone.utc)  # 01:50, ten minutes before
        windows, texts = [parse_window("Sun 02:00-02:30")], ["Sun 02:00-02:30"]
        opened = []
        for minutes in range(0, 120, 5):
            local = (night + timedelta(minutes=minutes)).astimezone()
            if why_closed(windows, texts, local, skipped_before(local)) is None:
                opened.append(f"{local:%H:%M}")
        assert opened == ["03:00", "03:05", "03:10", "03:15", "03:20", "03:25"]
        assert skipped_before(datetime(2027, 10, 31, 1, 10, tzinfo=timezone.utc).astimezone()) == timedelta()
    finally:
        monkeypatch.undo()
        time.tzset()


def test_without_windows_it_is_always_open():
    assert why_closed((), (), SATURDAY) is None
    assert DAYS[SATURDAY.weekday()] == "Sat"


def test_missing_file_gives_the_defaults(tmp_path):
    assert read_policy(tmp_path / "agent.yaml", must_exist=False) == Policy()
    with pytest.raises(ConfigError, match="cannot read"):
        read_policy(tmp_path / "agent.yaml", must_exist=True)


def test_empty_file_gives_the_defaults(tmp_path):
    (tmp_path / "agent.yaml").write_text("# nothing yet\n")
    assert read_policy(tmp_path / "agent.yaml", must_exist=True) == Policy()


def test_file_of_the_module_is_a_policy(tmp_path):
    from gallery_sync.agent import policy

    assert policy.__doc__ is not None
    lines = [line for line in policy.__doc__.splitlines() if line.startswith("    ")]
    (tmp_path / "agent.yaml").write_text("\n".join(line.removeprefix("    ") for line in lines))
    read = read_policy(tmp_path / "agent.yaml", must_exist=True)
    assert read.download.windows == ("22:00-06:00",)
    assert read.trial == Policy().trial


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("pol_s: 5", "agent.yaml:1: pol_s: unknown key 'pol_s'; did you mean 'poll_s'?"),
        ("install: {windows: ['02:00']}", "found the window '02:00'"),
        ("trial: {frame_rate: 2}", "trial.frame_rate"),
        ("poll_s: .nan", "poll_s"),
        ("poll_s: 5\npoll_s: 6", "appears twice"),
        ("- a list", "not a mapping of keys"),
        ("quarantine: {seconds: 0}", "quarantine.seconds"),
    ],
)
def test_wrong_file_names_line_and_key(tmp_path, text, told):
    (tmp_path / "agent.yaml").write_text(text)
    with pytest.raises(ConfigError) as raised:
        read_policy(tmp_path / "agent.yaml", must_exist=True)
    assert told in str(raised.value)


def test_gates_name_their_reason():
    policy = Policy.model_validate({"download": {"windows": ["02:00-05:00"]}, "install": {"windows": ["03:00-04:00"]}})
    noon, night = Surroundings(at(0, 12), 1 << 30, None), Surroundings(at(0, 3), 1 << 30, 5)
    assert why_not_download(policy, noon) == "waits for the window 02:00-05:00 (local time)"
    assert why_not_install(policy, noon) == "waits for the window 03:00-04:00 (local time)"
    assert why_not_download(policy, night) is None
    assert why_not_install(policy, night) is None
    assert "are spent" in (why_not_download(policy, Surroundings(at(0, 3), 1 << 30, 0)) or "")
    assert "free" in (why_not_download(policy, Surroundings(at(0, 3), 1000, None)) or "")


PLANNED = Target("demo", 5, "bundle-5", plan="spring", windows=("02:00-03:00",), deadline=at(5, 12).timestamp())


def test_windows_of_device_and_rollout_must_both_be_open():
    own = Policy.model_validate({"install": {"windows": ["02:30-04:00"]}})
    for hour, minute, is_open in ((2, 0, False), (2, 45, True), (3, 30, False)):
        here = Surroundings(at(5, hour, minute), 1 << 40, None)
        assert (why_not_install(own, here, PLANNED) is None) is is_open
    assert why_not_install(own, Surroundings(at(5, 3, 30), 1 << 40, None)) is None
    why = "rollout spring waits for the window 02:00-03:00 (local time)"
    assert why_not_install(Policy(), Surroundings(at(5, 1), 1 << 40, None), PLANNED) == why


def test_deadline_is_for_tries_that_did_not_begin():
    early, late = (Surroundings(at(5, hour), 1 << 40, None) for hour in (11, 13))
    assert why_not_download(Policy(), early, PLANNED, has_begun=False) is None
    assert why_not_download(Policy(), late, PLANNED, has_begun=True) is None
    assert why_not_download(Policy(), late, PLANNED, has_begun=False) == "the deadline of rollout spring is over"


def test_permit_is_required_where_the_policy_says_so():
    strict = Policy.model_validate({"install": {"permit": True}})
    nothing = Surroundings(at(5, 2), 1 << 40, None)
    permitted = replace(nothing, permit=Permit(line="demo", sequence=5, by="hawkbit"))
    prepared = replace(nothing, permit=Permit(line="demo", sequence=5, by="hawkbit", install=False))
    for gate in (why_not_download, why_not_install):
        assert gate(Policy(), nothing, PLANNED) is None
        assert "permit" in str(gate(strict, nothing, PLANNED))
        assert gate(strict, permitted, PLANNED) is None
        assert gate(strict, nothing) is None  # nothing is known that could be permitted
    assert why_not_download(strict, prepared, PLANNED) is None
    assert why_not_install(strict, prepared, PLANNED) is not None


def test_labels_and_fleet_are_read(tmp_path):
    path = tmp_path / "agent.yaml"
    path.write_text("labels: {site: berlin}\nfleet: {report_every_s: 60}\ncommands: {allow: [sync]}\n")
    found = read_policy(path, must_exist=True)
    assert (found.labels, found.fleet.report_every_s, found.commands.allow) == ({"site": "berlin"}, 60.0, ("sync",))
    path.write_text("labels: {line: other}\n")
    with pytest.raises(ConfigError, match="the label line, which comes from the enrolment"):
        read_policy(path, must_exist=True)
