"""Builds the fleet's server from its options, and runs it until it is stopped."""

from __future__ import annotations

import hashlib
import ipaddress
import logging
import secrets
import signal
import threading
import time
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from edge.errors import SyncError
from edge.messaging.settings import MqttSettings, ReceivedMessage
from edge.supervised_thread import SupervisedThread
from edge.telemetry.counters import Counters
from edge.telemetry.systemd import notify_systemd
from gallery_sync.collector import messages
from gallery_sync.collector.broker_link import BrokerLink
from gallery_sync.collector.commands import Commands
from gallery_sync.collector.credentials import read_token
from gallery_sync.collector.database import Database
from gallery_sync.collector.inbox import Inbox
from gallery_sync.collector.inflow import Inflow
from gallery_sync.collector.repository_watch import RepositoryWatch
from gallery_sync.collector.wakeups import WakeUps
from gallery_sync.collector.writer import Writer
from gallery_sync.command_line import parse_broker
from gallery_sync.formats.reports import PREFIX
from gallery_sync.fresh_files import one_at_a_time

log = logging.getLogger(__name__)

_LARGEST_INCOMING_BYTES = 256 << 10  # with MQTT 5, the broker keeps back what is longer; without, it ends connections
_KEEPALIVE_S = 30
_DAY_S = 86_400.0
_END_S = 10.0
_SIGNAL_S = 0.5  # the kernel may give a signal to another thread; Python handles it when this one runs
_FEW, _MOSTLY = 100, 0.9


@dataclass(frozen=True, slots=True)
class Options:
    """How the server runs."""

    database: Path
    broker: str  # mqtt://HOST[:PORT] or mqtts://HOST[:PORT]
    account: tuple[str, str] | None = field(default=None, repr=False)  # user name and password at the broker
    ca_file: Path | None = None
    certificate: Path | None = None  # of this server at the broker
    key: Path | None = None
    repositories: tuple[str, ...] = ()  # folders or URLs, one for each product line
    listen: str = "127.0.0.1:8090"
    host_names: tuple[str, ...] = ()
    token_file: Path | None = None
    https_certificate: Path | None = None
    https_key: Path | None = None
    inbox: Path | None = None
    inbox_token_file: Path | None = None
    keep_days: float = 180.0
    prefix: str = PREFIX
    topic_root: str = "finesight"
    mqtt_version: Literal["3.1.1", "5"] = "5"


def serve(options: Options) -> None:
    """Run the server until SIGTERM or SIGINT.

    Raises:
        ConfigError: it cannot listen.
        SyncError: the database, a token or the broker's address cannot be used.
    """
    from gallery_sync.collector.server import FleetServer, Listen, Parts

    stopped = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stopped.set())
    host, port = _listen_at(options.listen)
    token, inbox_token = read_token(options.token_file), read_token(options.inbox_token_file)
    _check_access(host, token, inbox_token, has_inbox=options.inbox is not None)
    settings = broker_settings(options)
    counters = Counters()
    with ExitStack() as stack:
        _lock(options.database, stack)
        database = Database(options.database)
        stack.callback(database.close)
        inflow = Inflow(counters)
        writer = Writer(database, inflow, counters, keep_s=options.keep_days * _DAY_S)
        link = _link(options, settings, writer, inflow, counters)
        writer.on_reset = link.reconnect
        _start("fleet-writer", writer, counters, stack)  # the first to start, the last to end: others call it
        commands = Commands(database, writer, link, options.prefix, options.topic_root, counters=counters)
        commands.remember_kept()
        writer.on_online = commands.on_online
        wakeups = _wake_ups(options, database, writer, link, counters)
        inbox = Inbox(options.inbox) if options.inbox else None
        parts = Parts(database, inflow, link, commands, counters, wakeups, inbox)
        names = (options.host_names, options.https_certificate, options.https_key)
        server = stack.enter_context(FleetServer(parts, Listen(host, port, token, inbox_token, *names)))
        _start("fleet-broker", link, counters, stack)
        _start("fleet-commands", commands, counters, stack)
        for one in wakeups:
            _start("fleet-wake-ups", one, counters, stack)
        print(f"fleet server: {server.url}, broker {settings.address}", flush=True)
        notify_systemd("READY=1")
        while not stopped.wait(_SIGNAL_S):
            pass
        notify_systemd("STOPPING=1")


def broker_settings(options: Options) -> MqttSettings:
    """Return how to reach the broker.

    Raises:
        SyncError: its address is invalid, or TLS files are given without TLS.
    """
    try:
        host, port, tls = parse_broker(options.broker)
    except ValueError as error:
        raise SyncError(
            "--broker: expected mqtt://HOST[:PORT] or mqtts://HOST[:PORT], without user and password"
        ) from error
    if not tls and (options.ca_file or options.certificate or options.key):
        raise SyncError("--broker: --ca-file, --cert and --key are for mqtts://; give such an address")
    user, password = options.account or (None, None)
    return MqttSettings(
        client_id=f"finesight-fleet-{secrets.token_hex(4)}",
        host=host,
        port=port,
        username=user,
        password=password,
        version=options.mqtt_version,
        keepalive_s=_KEEPALIVE_S,
        tls=tls,
        tls_ca=options.ca_file,
        tls_cert=options.certificate,
        tls_key=options.key,
        max_incoming_bytes=_LARGEST_INCOMING_BYTES,
    )


def _link(options: Options, settings: MqttSettings, writer: Writer, inflow: Inflow, counters: Counters) -> BrokerLink:
    def receive(message: ReceivedMessage) -> None:
        try:
            found = messages.arrived(
                message.topic,
                message.payload,
                time.time(),
                retained=message.retained,
                prefix=options.prefix,
                topic_root=options.topic_root,
            )
        except messages.WrongMessageError as error:
            writer.refuse(hashlib.sha256(message.topic.encode()).hexdigest()[:16], "message", error)
            return
        inflow.put(found)

    def settled(retained: int) -> None:
        known = writer.devices
        if known > _FEW and retained < _MOSTLY * 2 * known:  # a report and the availability of each
            counters.add("retained_incomplete")
            log.warning(
                "the broker sent %d of about %d messages that it should keep of %d devices: it lost them, or limits "
                "their number (mosquitto needs max_queued_messages 0)",
                *(retained, 2 * known, known),
            )

    return BrokerLink(
        *(settings, messages.topics(options.prefix), receive, counters),
        optional_topics=(f"{options.topic_root}/+/+/cmd/reply",),
        on_settled=settled,
    )


def _wake_ups(
    options: Options, database: Database, writer: Writer, link: BrokerLink, counters: Counters
) -> tuple[WakeUps, ...]:
    watches = [RepositoryWatch(place, options.ca_file) for place in options.repositories]
    parts = (database, writer, link.retain, counters)
    return tuple(WakeUps(watch, *parts, prefix=options.prefix) for watch in watches)


def _start(name: str, part: BrokerLink | Commands | WakeUps | Writer, counters: Counters, stack: ExitStack) -> None:
    thread = SupervisedThread(name, part.run, counters)
    thread.start()
    stack.callback(thread.stop, _END_S)
    stack.callback(part.stop)


def _lock(database: Path, stack: ExitStack) -> None:
    lock = database.with_name(f"{database.name}.lock")
    try:
        database.parent.mkdir(parents=True, exist_ok=True)
        stack.enter_context(one_at_a_time(lock))
    except BlockingIOError as error:
        raise SyncError(f"{database}: another fleet server uses it; stop that one, or choose another file") from error
    except OSError as error:
        raise SyncError(f"{lock}: cannot lock: {error.strerror}") from error


def _listen_at(text: str) -> tuple[str, int]:
    host, _, port = text.rpartition(":")
    if not host or not port.isdecimal() or int(port) > 65535:
        raise SyncError(f"--listen: found {text[:80]!r}, expected HOST:PORT")
    return host.removeprefix("[").removesuffix("]"), int(port)


def _check_access(host: str, token: str | None, inbox_token: str | None, *, has_inbox: bool) -> None:
    try:
        is_local = host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        is_local = False
    if is_local:
        return
    if token is None:
        raise SyncError("--listen: any address but loopback needs --token-file, or everybody could send commands")
    if has_inbox and inbox_token is None:
        raise SyncError("--inbox: any address but loopback needs --inbox-token-file, the token of the devices")
