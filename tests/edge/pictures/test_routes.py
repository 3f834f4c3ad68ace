from __future__ import annotations

import json
import queue

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edge.config.schema import LiveConfig, SnapshotConfig
from edge.http_server.access import cookie_value
from edge.pictures.live_view import LiveView
from edge.pictures.routes import COOKIE, MjpegStream, PictureRoutes
from edge.pictures.snapshots import Snapshots
from tests.edge.pictures.picture_samples import event_of, frame_of, result_of
from tests.waiting import DEADLINE_S

TOKEN = "s3cret token"
LOCAL = {"host": "127.0.0.1:9464"}


@pytest.fixture
def live(counters):
    with LiveView(LiveConfig(max_clients=1), counters) as running:
        yield running


@pytest.fixture
def snapshots(counters):
    made = queue.Queue()
    with Snapshots(SnapshotConfig(), lambda *_: made.put(None), counters) as running:
        running.made = made
        yield running


@pytest.fixture
def routes(live, snapshots, counters):
    return PictureRoutes(lambda: ["door", "roof"], snapshots, live, None, counters)


def error_of(answer):
    return answer.status, json.loads(answer.body)["error"]


def test_other_paths_are_not_answered(routes):
    assert routes.answer("/metrics", "", LOCAL) is None


def test_page_and_its_files_are_served(routes):
    for path in ("/live", "/live.js", "/live.css"):
        answer = routes.answer(path, "", LOCAL)
        assert answer.status == 200
        assert answer.headers["Content-Security-Policy"].startswith("default-src 'self'")
    assert json.loads(routes.answer("/live.json", "", LOCAL).body) == {"cameras": ["door", "roof"]}


def test_stream_holds_a_jpeg_per_part_and_counts_its_viewer_out(routes, live):
    answer = routes.answer("/live/door", "", LOCAL)
    assert answer.content_type == "multipart/x-mixed-replace; boundary=finesight"
    assert isinstance(answer.body, MjpegStream)
    live.observe(frame_of(), result_of())
    head, _, jpeg = next(iter(answer.body)).partition(b"\r\n\r\n")
    assert head.startswith(b"--finesight\r\nContent-Type: image/jpeg\r\nContent-Length: ")
    assert jpeg.startswith(b"\xff\xd8")
    assert json.loads(routes.answer("/live/door.json", "", LOCAL).body) == {"names": ["Red 0.5 l 97%"]}
    assert error_of(routes.answer("/live/roof", "", LOCAL))[0] == 503
    answer.body.close()
    assert routes.answer("/live/roof", "", LOCAL).status == 200


def test_snapshot_is_served_once_there_is_one(routes, snapshots):
    assert error_of(routes.answer("/snapshot/door.jpg", "", LOCAL)) == (
        404,
        "there is no snapshot of camera 'door' yet",
    )
    snapshots.observe(frame_of(), result_of(event_of(event_id="e1")))
    snapshots.made.get(timeout=DEADLINE_S)
    answer = routes.answer("/snapshot/door.jpg", "", LOCAL)
    assert (answer.status, answer.content_type, answer.headers["X-Event-Id"]) == (200, "image/jpeg", "e1")


def test_snapshot_of_a_removed_camera_is_gone(snapshots, counters):
    cameras = ["door"]
    routes = PictureRoutes(lambda: cameras, snapshots, None, None, counters)
    snapshots.observe(frame_of(), result_of(event_of()))
    snapshots.made.get(timeout=DEADLINE_S)
    cameras.clear()
    assert routes.answer("/snapshot/door.jpg", "", LOCAL).status == 404


def test_what_is_off_says_how_to_switch_it_on(counters):
    routes = PictureRoutes(lambda: ["door"], None, None, None, counters)
    assert "live: {}" in error_of(routes.answer("/live", "", LOCAL))[1]
    assert "snapshots: {}" in error_of(routes.answer("/snapshot/door.jpg", "", LOCAL))[1]


PATHS = ["/live", "/live.js", "/live.json", "/live/door", "/live/door.json", "/snapshot/door.jpg"]


@pytest.mark.parametrize("path", PATHS)
def test_every_path_needs_the_token(live, snapshots, counters, path):
    routes = PictureRoutes(lambda: ["door"], snapshots, live, TOKEN, counters)
    assert routes.answer(path, "", {"host": "10.0.0.5"}).status == 401
    assert routes.answer(path, "token=other", {"host": "10.0.0.5"}).status == 401
    assert counters.total("pictures_refused", reason="no_token") == 2
    with_cookie = {"host": "10.0.0.5", "cookie": f"a=b; {COOKIE}={cookie_value(TOKEN)}"}
    assert routes.answer(path, "", with_cookie).status in {200, 404}


def test_token_in_the_address_becomes_a_cookie(live, counters):
    routes = PictureRoutes(lambda: ["door"], None, live, TOKEN, counters)
    answer = routes.answer("/live", "token=s3cret%20token", {"host": "10.0.0.5"})
    assert (answer.status, answer.headers["Location"]) == (303, "/live")
    assert TOKEN not in answer.headers["Set-Cookie"]
    cookie = answer.headers["Set-Cookie"].partition(";")[0]
    assert routes.answer("/live", "", {"host": "10.0.0.5", "cookie": cookie}).status == 200


@settings(derandomize=True, max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.text(max_size=30), st.text(max_size=30), st.text(max_size=60))
def test_any_request_gets_an_answer(routes, path, query, cookie):
    for prefix in ("/live", "/live/", "/snapshot/"):
        answer = routes.answer(prefix + path, query, {**LOCAL, "cookie": cookie})
        if isinstance(answer.body, MjpegStream):
            answer.body.close()
        assert answer.status in {200, 404}
