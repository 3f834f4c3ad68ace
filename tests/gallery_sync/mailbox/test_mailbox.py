"""The mailbox at a broker in memory: reports, answers, availability, and a broker that is silent or away."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from edge.messaging.settings import BrokerLimits
from gallery_sync.formats.reports import LARGEST_REPORT_BYTES
from tests.gallery_sync.mailbox.broker_samples import (
    IDLE,
    SETTINGS,
    TOPICS,
    Broker,
    doorbell,
    mailbox_at,
    turn,
)
from tests.waiting import until


@pytest.fixture
def broker():
    return Broker()


@pytest.fixture
def mailbox(broker, tmp_path):
    box = mailbox_at(broker, tmp_path)
    yield box
    box.close()


def test_device_is_online_and_its_will_says_offline(broker, mailbox):
    mailbox.start()
    broker.wait_for(lambda: (TOPICS.available, b"online", True) in broker.published, "online")
    assert (broker.will.topic, broker.will.payload, broker.will.retain) == (TOPICS.available, b"offline", True)
    assert broker.subscribed == [TOPICS.doorbell, TOPICS.turn, TOPICS.commands]
    mailbox.close()
    assert broker.published[-1] == (TOPICS.available, b"offline", True)


def test_report_has_its_number_and_what_every_report_has(broker, mailbox):
    mailbox.put(IDLE | {"counters": {"loops": 3}})
    mailbox.start()
    broker.wait_for(broker.reports, "a report")
    report = broker.reports()[0]
    assert (report["device"], report["line"], report["revision"], report["allowed"]) == ("cam-1", "shop", 1, ["sync"])
    assert report["schema"] == "finesight.reported/1"
    assert report["counters"]["loops"] == 3
    until(lambda: mailbox.counts().get('reports{result="sent"}') == 1, "it is counted")


def test_reports_are_coalesced_to_the_newest(broker, mailbox):
    broker.acknowledges = False
    mailbox.start()
    mailbox.put(IDLE)
    broker.wait_for(broker.reports, "the first report")
    for state in ("fetch", "verify", "stage", "prove"):
        mailbox.put(IDLE | {"state": state})
    with broker.changed:
        broker.acknowledges = True
        broker.changed.notify_all()
    broker.wait_for(lambda: len(broker.reports()) == 2, "the newest report")
    assert [(one["state"], one["revision"]) for one in broker.reports()] == [("idle", 1), ("prove", 2)]


def test_f5_unacknowledged_report_is_sent_again_once_under_its_number(broker, mailbox):
    broker.acknowledges = False
    mailbox.put(IDLE)
    mailbox.start()
    broker.wait_for(broker.reports, "a report")
    broker.acknowledges = True
    broker.lose()
    broker.wait_for(lambda: len(broker.reports()) == 2, "the report again")
    until(lambda: mailbox.counts().get('reports{result="sent"}') == 1, "it is acknowledged")
    broker.lose()
    until(lambda: len(broker.connections) == 3 and mailbox.connected, "the third connection")
    first, second = broker.reports()
    assert first == second
    assert mailbox.counts()['reports{result="lost"}'] == 1


def test_f5_newer_report_replaces_the_unacknowledged_one(broker, mailbox):
    broker.acknowledges = False
    mailbox.put(IDLE)
    mailbox.start()
    broker.wait_for(broker.reports, "a report")
    mailbox.put(IDLE | {"state": "trial"})
    broker.acknowledges = True
    broker.lose()
    broker.wait_for(lambda: len(broker.reports()) == 2, "the newer report")
    assert [(one["state"], one["revision"]) for one in broker.reports()] == [("idle", 1), ("trial", 2)]


def test_f1_absent_broker_is_counted_and_nothing_else(broker, mailbox):
    broker.is_there = False
    mailbox.start()
    mailbox.put(IDLE)
    until(lambda: mailbox.counts().get('mailbox_failures{reason="unreachable"}', 0) > 3, "failures")
    mailbox.wait(0.001)
    assert not mailbox.rang()
    assert not mailbox.connected
    assert "cannot connect" in mailbox.error
    broker.is_there = True
    broker.wait_for(broker.reports, "the report, once the broker is there")


def test_broker_that_answers_nothing_is_left(broker, tmp_path):
    broker.acknowledges = False
    box = mailbox_at(broker, tmp_path, settings=replace(SETTINGS, acknowledge_timeout_s=0.05))
    box.put(IDLE)
    box.start()
    until(lambda: len(broker.connections) > 1, "another connection")
    assert "no answer to a message" in until(lambda: box.error, "the reason")
    box.close()


def test_broker_that_disconnects_subscribers_gets_reports(broker, mailbox):
    broker.disconnects_subscribers = True
    mailbox.put(IDLE)
    mailbox.start()
    broker.wait_for(broker.reports, "a report")
    assert (len(broker.connections), broker.subscribed) == (4, [])
    assert mailbox.counts()["subscriptions_refused"] == 1


def test_doorbell_and_turn_reach_the_agent(broker, mailbox):
    mailbox.start()
    until(lambda: mailbox.connected, "a connection")
    broker.send(doorbell(5))
    mailbox.wait(10)
    assert mailbox.rang()
    broker.send(turn(4))
    assert mailbox.has_turn(4, "plan-1")
    broker.lose()
    until(lambda: len(broker.connections) == 2, "another connection")
    until(lambda: not mailbox.has_turn(4, "plan-1"), "no turn")


def test_answer_is_delivered_once_the_broker_has_it(broker, mailbox):
    mailbox.answer("c-1", b"{}")
    assert mailbox.take_delivered() == []
    mailbox.start()
    assert until(mailbox.take_delivered, "delivered") == ["c-1"]
    assert broker.answers() == [b"{}"]


def test_lost_answers_are_sent_again_in_order(broker, mailbox):
    broker.acknowledges = False
    mailbox.start()
    for number in range(3):
        mailbox.answer(str(number), str(number).encode())
    broker.wait_for(lambda: len(broker.answers()) == 3, "answers")
    broker.acknowledges = True
    broker.lose()
    broker.wait_for(lambda: len(broker.answers()) == 6, "answers again")
    assert broker.answers()[3:] == [b"0", b"1", b"2"]


def test_answers_without_a_broker_are_bounded(broker, mailbox):
    for number in range(130):
        mailbox.answer(str(number), b"{}")
    assert mailbox.counts()['answers{result="dropped"}'] == 30
    mailbox.start()
    broker.wait_for(lambda: len(broker.answers()) == 100, "the newest answers")


def test_report_without_a_change_of_state_waits(broker, mailbox):
    mailbox.start()
    mailbox.put(IDLE | {"fps": 1.0})
    broker.wait_for(broker.reports, "a report")
    until(lambda: mailbox.counts().get('reports{result="sent"}') == 1, "acknowledged")
    mailbox.put(IDLE | {"fps": 2.0, "reason": "on trial: served for 5 s"})
    mailbox.put(IDLE | {"state": "trial"})
    broker.wait_for(lambda: len(broker.reports()) == 2, "the change of state")
    assert [one["state"] for one in broker.reports()] == ["idle", "trial"]


@pytest.mark.parametrize("limit", [None, 2000])
def test_large_report_loses_what_it_can_do_without(broker, mailbox, limit):
    broker.limits = BrokerLimits(max_packet_bytes=limit)
    long = "x" * 120
    cameras = {f"{n}-{long}"[:120]: long for n in range(64)}
    tries = [
        {"release": 3, "bundle_id": "b", "outcome": "refused", "reason": "y" * 400, "at": 1.0, "plan": long}
        for _ in range(10)
    ]
    counters = {f"{n}-{long}"[:120]: 2**50 for n in range(64)}
    mailbox.put(IDLE | {"cameras": cameras, "tries": tries, "counters": counters, "reason": "z" * 400})
    mailbox.start()
    broker.wait_for(broker.reports, "a report")
    report = broker.reports()[0]
    assert len(json.dumps(report)) <= (limit or LARGEST_REPORT_BYTES)
    assert report["state"] == "idle"
    assert report["tries"] == ([] if limit else report["tries"])


def test_report_that_is_none_is_counted(broker, mailbox, caplog):
    mailbox.put(IDLE | {"state": 7})
    mailbox.start()
    until(lambda: mailbox.counts().get('reports{result="invalid"}') == 1, "counted")
    mailbox.put(IDLE)
    broker.wait_for(broker.reports, "the next report")


def test_passwords_do_not_leave_in_a_report(broker, mailbox):
    told = "cannot reach https://user:hunter22@updates.example.com/shop"
    tries = [{"release": 3, "bundle_id": "b", "outcome": "refused", "reason": told, "at": 1.0}]
    mailbox.put(IDLE | {"reason": told, "tries": tries, "quarantine": [{"release": 3, "reason": told}]})
    mailbox.start()
    broker.wait_for(broker.reports, "a report")
    assert "hunter22" not in json.dumps(broker.reports())


def test_closing_ends_the_wait_of_the_agent(mailbox):
    mailbox.start()
    mailbox.close()
    mailbox.wait(60)
