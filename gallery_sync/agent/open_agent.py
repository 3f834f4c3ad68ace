"""Puts the agent of an enrolled device together: its journal, its repository, and how it proves."""

from __future__ import annotations

import random
import secrets
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, cast
from urllib.request import getproxies_environment

from pydantic import BaseModel, ConfigDict

from edge import __version__
from edge.bundle.prove import ProofOptions, Prover, prover
from edge.config.schema import EngineConfig
from edge.config.yaml_file import load_typed
from edge.durable import make_folder
from edge.errors import SyncError
from edge.inference.engine import BUILDING_BACKENDS, unusable
from edge.redact import secrets_in
from edge.telemetry.known_secrets import remember
from edge.telemetry.vital_signs import machine_boot_id, monotonic_s
from gallery_sync.agent.agent import Agent
from gallery_sync.agent.doors import World, local_time
from gallery_sync.agent.fleet_report import About, FleetReport
from gallery_sync.agent.journal import Journal, open_journal
from gallery_sync.agent.open_fleet import Fleet, Parts, hands_of
from gallery_sync.agent.policy import Policy
from gallery_sync.agent.report import Reporter, read_held
from gallery_sync.agent.repository_steps import DeviceSteps, RenewedDeadline, Repository
from gallery_sync.device.fetch import Options
from gallery_sync.device.source import Source, open_source
from gallery_sync.fresh_files import one_at_a_time
from gallery_sync.remote_hands.config_files import current
from gallery_sync.transport.byte_budget import ByteBudget
from gallery_sync.transport.http_connection import Access
from gallery_sync.transport.network_manager import MeteredNetwork
from gallery_sync.transport.rate_limit import RateLimit
from gallery_sync.transport.repository_files import open_transport
from gallery_sync.transport.retry_ledger import RetryLedger

if TYPE_CHECKING:
    from gallery_sync.trust.client import TrustedClient

LOCK_NAME = "agent.lock"


@dataclass(frozen=True, slots=True)
class Place:
    """Which device, and which repository."""

    state_dir: Path
    url: str  # of the repository
    line: str | None  # None: that of the releases on the device
    device_config: Path | None  # device.yaml, for its engine; None: the defaults


class _Device(BaseModel):
    """What the agent reads of device.yaml; the rest may hold secrets that it does not have."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    engine: EngineConfig = EngineConfig()


@contextmanager
def one_agent(state_dir: Path) -> Iterator[None]:
    """Let one agent at a time into a state folder.

    Raises:
        SyncError: another one runs, or the folder cannot be written.
    """
    path = state_dir / LOCK_NAME
    with ExitStack() as stack:
        try:
            make_folder(state_dir)
            stack.enter_context(one_at_a_time(path))
        except BlockingIOError as error:
            raise SyncError(f"{state_dir}: another agent is running here; stop it first") from error
        except OSError as error:
            raise SyncError(f"{path}: cannot be opened: {error.strerror}; give the folder to this user") from error
        yield


def open_agent(
    place: Place,
    policy: Policy,
    prove: Prover | None = None,
    world: World | None = None,
    fleet: Fleet | None = None,
) -> Agent:
    """Return the agent of a device.

    Args:
        place: which device and repository.
        policy: of the device.
        prove: tries a pair; None: in a child process, with the engine of the device.
        world: clocks and waiting; None: the real ones.
        fleet: of the device; None: it has none.

    Raises:
        ConfigError: device.yaml is wrong.
        SyncError: the device is not enrolled, the URL is wrong, or the disk failed.
    """
    remember(secrets_in(place.url))
    world = world or real_world()
    journal = open_journal(place.state_dir)
    if journal.is_empty:
        journal.hold(read_held(place.state_dir))
    budget = ByteBudget(policy.bytes, journal, now=local_time, is_metered=MeteredNetwork())
    deadline = RenewedDeadline()
    access = policy.repository
    transport = open_transport(
        place.url,
        access.timeout_s,
        access=Access(frozenset(map(str.lower, access.allow_hosts)), access.ca_file, getproxies_environment()),
        min_bytes_per_s=access.min_bytes_per_s,
        deadline=deadline,
        rate=RateLimit(policy.download.bytes_per_s) if policy.download.bytes_per_s else None,
        budget=budget,
    )
    ledger = RetryLedger(journal, now_s=world.now, jitter=world.jitter)
    source = open_source(transport, place.state_dir, line=place.line, ledger=ledger, labels=policy.labels)
    options = Options(may_fetch_whole=budget.may_fetch_whole)
    repository = Repository(source, cast("TrustedClient", source.client).freshness, deadline, budget, options)
    proof = _proof_options(place, policy)
    prove = prove or prover(proof, place.state_dir)
    steps = DeviceSteps(place.state_dir, repository, policy, prove, world.monotonic, local_time)
    fleet = fleet or Fleet()
    reporter = Reporter(place.state_dir, journal, world.now, journal.told, fleet.about)
    fleet_report = _fleet_report(place.state_dir, source, journal, policy, world)
    parts = Parts(
        place.state_dir,
        place.device_config,
        repository,
        journal,
        prover(replace(proof, build=False)),
        prover(proof, place.state_dir),
    )
    hands = hands_of(fleet, policy, parts, world.now)
    return Agent(steps, journal, policy, world, reporter, fleet.mailbox, fleet_report, hands)


def _fleet_report(
    state_dir: Path, source: Source, journal: Journal, policy: Policy, world: World
) -> FleetReport | None:
    """Return what makes the reports to the fleet; None: the device is not enrolled."""
    identity = source.identity
    if identity.device_id is None:
        return None
    about = About(
        identity.device_id,
        source.line,
        identity.labels,
        __version__,
        policy.commands.allow,
        lambda: current(state_dir),
    )
    return FleetReport(about, journal, world.now, journal.told)


def _proof_options(place: Place, policy: Policy) -> ProofOptions:
    """Return how a pair is proved: with the engine of the device, and engines that are built for minutes."""
    engine = load_typed(place.device_config, _Device).engine if place.device_config else EngineConfig()
    return ProofOptions(
        engine.backend,
        engine.threads,
        engine.precision,
        place.state_dir / "cache",
        build=engine.backend in BUILDING_BACKENDS or (engine.backend == "auto" and not unusable("tensorrt")),
        tensorrt=engine.tensorrt,
        p95_ms=policy.proof.p95_ms,
        memory_mib=policy.proof.memory_mib,
    )


def real_world() -> World:
    """Return the clocks of this machine."""
    return World(
        time.time,
        monotonic_s,
        time.sleep,
        random.random,
        machine_boot_id() or "unknown",
        lambda: secrets.token_hex(8),
    )
