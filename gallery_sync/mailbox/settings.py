"""How the agent reaches its broker: the part `fleet` of `agent.yaml`, `broker.env` of the enrolment, the environment.

    fleet:
      host: broker.example.com   # default: of the enrolment's account; without a host there is no mailbox
      port: 8883
      tls_ca: /etc/finesight/broker-ca.pem
      tls_cert: /etc/finesight/device.pem   # with tls_key: a client certificate in place of a password
      tls_key: /etc/finesight/device.key
      version: "5"               # of MQTT; default: 3.1.1

Rules this module keeps:
1. A key of `agent.yaml` counts first, then the environment, then `broker.env`.
2. A password goes with its host: the account of `broker.env` is not sent to a host that something else names.
3. A password is never part of a message.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from edge.errors import SyncError
from edge.messaging.settings import MqttSettings
from edge.telemetry.known_secrets import remember
from gallery_sync.formats.reports import PREFIX
from gallery_sync.fresh_files import read_regular

log = logging.getLogger(__name__)

ACCOUNT_FILE = "broker.env"  # in the state folder, from the enrolment
_VARIABLES = "FINESIGHT_MQTT_"
_LINE = re.compile(r"FINESIGHT_MQTT_([A-Z]+)='([^']*)'")
_LARGEST_BYTES = 1 << 16
_PORT, _TLS_PORT, _LAST_PORT = 1883, 8883, 65535
_WINDOW = 16  # messages in flight
Seconds = Annotated[float, Field(ge=0, le=86400, allow_inf_nan=False)]


class Fleet(BaseModel):
    """How to reach the fleet's broker, and how often to report."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    host: Annotated[str, Field(pattern=r"^[A-Za-z0-9.:_-]{1,253}$")] | None = None
    port: Annotated[int, Field(ge=1, le=65535)] | None = None
    tls: bool | None = None  # None: if a file below says so, or the enrolment
    tls_ca: Path | None = None  # None: the authorities of the system
    tls_cert: Path | None = None
    tls_key: Path | None = None
    version: Literal["3.1.1", "5"] = "3.1.1"
    prefix: Annotated[str, Field(pattern=r"^[A-Za-z0-9_.-]{1,40}(/[A-Za-z0-9_.-]{1,40}){0,7}$")] = PREFIX
    report_every_s: Annotated[float, Field(ge=1, le=86400, allow_inf_nan=False)] = 300.0  # where only numbers change
    spread_s: Seconds = 5.0  # after the doorbell, each device waits a part of it, so that they do not ask at once
    doorbell_every_s: Seconds = 10.0  # at most one look at the repository in this time because of the doorbell

    @model_validator(mode="after")
    def _has_both_or_none(self) -> Fleet:
        if (self.tls_cert is None) != (self.tls_key is None):
            raise ValueError("found one of tls_cert and tls_key, expected both: a certificate and its key")
        return self


def mqtt_settings(fleet: Fleet, state_dir: Path, device_id: str, environment: Mapping[str, str]) -> MqttSettings | None:
    """Return how to reach the broker; None: there is none.

    Args:
        fleet: of agent.yaml.
        state_dir: of the device.
        device_id: of its enrolment.
        environment: of the process.

    Raises:
        SyncError: a port or a flag is none.
    """
    account = _account(fleet, state_dir, environment)
    host = fleet.host or account.get("HOST")
    if not host:
        return None
    if host != account.get("HOST", host):
        account = {}
    remember([account.get("PASSWORD")])
    tls = _flag(account.get("TLS"), fleet.tls)
    if fleet.tls is None and (fleet.tls_ca or fleet.tls_cert):
        tls = True
    return MqttSettings(
        client_id=f"finesight-{device_id}-agent",
        host=host,
        port=_port(fleet.port, account.get("PORT"), tls=tls),
        username=account.get("USERNAME") or None,
        password=account.get("PASSWORD") or None,
        version=fleet.version,
        tls=tls,
        tls_ca=fleet.tls_ca,
        tls_cert=fleet.tls_cert,
        tls_key=fleet.tls_key,
        window=_WINDOW,
    )


def _account(fleet: Fleet, state_dir: Path, environment: Mapping[str, str]) -> dict[str, str]:
    """Return the account of the environment or, if there is none, that of the enrolment; keys without the prefix."""
    found = {name.removeprefix(_VARIABLES): value for name, value in environment.items() if name.startswith(_VARIABLES)}
    if found.get("HOST") or (fleet.host and found.get("USERNAME")):
        return found
    path = state_dir / ACCOUNT_FILE
    try:
        text = read_regular(path, _LARGEST_BYTES)[:_LARGEST_BYTES].decode()
    except FileNotFoundError:
        return {}
    except (OSError, UnicodeError) as error:
        log.warning(
            "%s: cannot read the account at the broker: %s; the agent looks for releases without it", path, error
        )
        return {}
    return {match[1]: match[2] for line in text.splitlines() if (match := _LINE.fullmatch(line))}


def _flag(text: str | None, given: bool | None) -> bool:
    if given is not None:
        return given
    if text in (None, "", "false", "true"):
        return text == "true"
    raise SyncError(f"FINESIGHT_MQTT_TLS: found {text[:20]!r}, expected true or false")


def _port(given: int | None, text: str | None, *, tls: bool) -> int:
    if given is not None or not text:
        return given or (_TLS_PORT if tls else _PORT)
    if not text.isdecimal() or not 1 <= int(text[:6]) <= _LAST_PORT:
        raise SyncError(f"FINESIGHT_MQTT_PORT: found {text[:20]!r}, expected a port such as 8883")
    return int(text)
