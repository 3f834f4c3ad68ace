"""Plans for a reload of the configuration."""

from __future__ import annotations

import pytest

from edge.config.reload import plan_reload
from edge.config.schema import DeviceConfig

RUNNING = {
    "cameras": {"door": {"source": "rtsp://cam/1"}, "till": {"source": "rtsp://cam/2"}},
    "mqtt": {"host": "broker", "password": "hunter2"},
}


@pytest.fixture
def running():
    return DeviceConfig.model_validate(RUNNING)


def wanted(**changes):
    return DeviceConfig.model_validate(RUNNING | changes)


def test_same_configuration_changes_nothing(running):
    plan = plan_reload(running, wanted())
    assert plan.config == running
    assert (plan.removed, plan.added, plan.changed, plan.recognition, plan.needs_restart) == ((), (), (), False, ())


def test_cameras_are_removed_added_and_changed_by_name(running):
    new = wanted(cameras={"door": {"source": "rtsp://cam/1", "latency_ms": 50}, "roof": {"source": "rtsp://cam/3"}})
    plan = plan_reload(running, new)
    assert (plan.removed, plan.added, plan.changed) == (("till",), ("roof",), ("door",))
    assert plan.config.cameras == new.cameras


def test_recognition_changes_while_running(running):
    plan = plan_reload(running, wanted(recognition={"min_looks": 5}))
    assert plan.recognition
    assert plan.config.recognition.min_looks == 5
    assert plan.needs_restart == ()


def test_other_changes_need_a_restart_and_are_listed(running):
    new = wanted(site="shop", mqtt={"host": "other", "password": "hunter3"}, engine={"threads": 4}, health={})
    plan = plan_reload(running, new)
    assert plan.needs_restart == ("site", "mqtt.host", "mqtt.password", "engine.threads", "health")
    assert plan.config == running
    assert "hunter" not in str(plan.summary())
