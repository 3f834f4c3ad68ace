"""What a device allows its update agent: the file `agent.yaml`. All keys have defaults, and unknown keys are errors.

    poll_s: 60                  # how often to look for a release; one small request
    repository:
      ca_file: /etc/finesight/ca.pem
    download:
      windows: ["22:00-06:00"]  # local time; default: always
      bytes_per_s: 500000       # default: no limit
      bytes_per_day: 200000000  # default: no limit
      metered: auto             # yes, no, or auto: as NetworkManager says
      free_bytes: 67108864      # stay free
    install:
      windows: ["Sat,Sun 02:00-05:00"]  # when to prove and to switch; default: always
      permit: false             # wait for the permission of another program
    trial:
      seconds: 300
      frame_rate: 0.8           # of the release before
    quarantine:
      seconds: 3600             # doubles with each failure of the same release
    labels: {site: berlin}      # that rollouts select by, beside those of the enrolment
    fleet:                      # how to reach its broker, see gallery_sync.mailbox.settings
      report_every_s: 300       # where nothing but numbers changes
    commands:                   # that a person may send from afar, see gallery_sync.remote_hands.permission
      allow: [sync, rollback]   # default: none

The types below say what each key means, and its default.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, field_validator

from gallery_sync.device.identity import OwnLabels
from gallery_sync.formats.windows import Window, parse_window
from gallery_sync.mailbox.settings import Fleet
from gallery_sync.remote_hands.permission import Commands
from gallery_sync.transport.byte_budget import BytePolicy, Metered

Seconds = Annotated[float, Field(gt=0, le=366 * 86400, allow_inf_nan=False)]
Share = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]
Bytes = Annotated[int, Field(ge=1, lt=2**53)]
_MOST_WINDOWS = 50


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class _WithWindows(_Part):
    windows: Annotated[tuple[str, ...], Field(max_length=_MOST_WINDOWS)] = ()  # local time; none: always

    @field_validator("windows")
    @classmethod
    def _are_windows(cls, windows: tuple[str, ...]) -> tuple[str, ...]:
        for window in windows:
            parse_window(window)
        return windows

    @property
    def parsed(self) -> tuple[Window, ...]:
        """The windows."""
        return tuple(parse_window(window) for window in self.windows)


class Download(_WithWindows):
    """When and how much to download."""

    bytes_per_s: Bytes | None = None  # None: no limit
    bytes_per_day: Bytes | None = None  # None: no limit; urgent deletions are never held back
    metered: Metered = "auto"  # where bytes cost money, a whole file never replaces a residual that failed
    metered_bytes_per_day: Annotated[int, Field(ge=0, lt=2**53)] | None = None  # there; None: as everywhere
    free_bytes: Annotated[int, Field(ge=0, lt=2**53)] = 64 << 20  # of the state folder's file system stay free
    at_once_s: Seconds = 300.0  # then the agent checks again, and goes on where it stopped


class Install(_WithWindows):
    """When to prove a release, which builds its engines, and when to switch to it.

    A proof that started goes on when the window closes. The switch waits for the next window then.
    """

    permit: bool = False  # wait for the permission of another program, see gallery_sync.device.permit


class RepositoryAccess(_Part):
    """How to reach the repository."""

    allow_hosts: Annotated[tuple[str, ...], Field(max_length=50)] = ()  # that redirects may lead to, such as a CDN
    ca_file: Path | None = None  # trust only the certificate authorities in this PEM file; None: the system's
    timeout_s: Seconds = 20.0  # without a byte, before a download fails
    min_bytes_per_s: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 500.0  # over 30 s; slower ones fail


class Proof(_Part):
    """What a release may need on this device, beyond the budgets of its manifest."""

    p95_ms: Seconds | None = None  # milliseconds of a probe, 95th percentile; None: no limit
    memory_mib: Bytes | None = None  # of resident memory with everything loaded; None: no limit


class Trial(_Part):
    """How a new release is watched, against the one before it."""

    seconds: Seconds = 300.0  # that it must serve without a fault
    look_s: Seconds = 5.0  # between two looks at the vital signs
    serve_within_s: Seconds = 180.0  # that a running device has to turn to the new pair
    edge_within_s: Seconds = 6 * 3600.0  # that a device that does not run is waited for
    frame_rate: Share = 0.8  # of the one before, by camera; below, the trial fails
    restarts: Annotated[int, Field(ge=1, le=100)] = 2  # of `edge run` during the trial; more fail it
    error_rate: Share = 0.05  # of frames, above that of the release before
    match_rate_drop: Share = 0.25  # of the share of known answers, against the release before
    answers: Annotated[int, Field(ge=1, lt=2**31)] = 50  # that both releases must have given before they are compared


class Quarantine(_Part):
    """How long a release that failed is held back."""

    seconds: Seconds = 3600.0  # after the first failure; doubled with each one
    most_seconds: Seconds = 7 * 86400.0


class Policy(_Part):
    """The content of `agent.yaml`."""

    poll_s: Seconds = 60.0
    jitter: Share = 0.2  # of poll_s, so that devices do not ask at once
    retry_first_s: Seconds = 60.0  # after a failure of the network or the disk; doubled with each one
    most_retry_s: Seconds = 3600.0
    repository: RepositoryAccess = RepositoryAccess()
    download: Download = Download()
    install: Install = Install()
    proof: Proof = Proof()
    trial: Trial = Trial()
    quarantine: Quarantine = Quarantine()
    labels: OwnLabels = Field(default_factory=dict)
    fleet: Fleet = Fleet()
    commands: Commands = Commands()

    @property
    def bytes(self) -> BytePolicy:
        """What may be downloaded, for gallery_sync.transport.byte_budget."""
        download = self.download
        return BytePolicy(download.bytes_per_day, download.metered, download.metered_bytes_per_day)

    @property
    def most_cool_down_s(self) -> float:
        """The longest quarantine, in seconds."""
        return max(self.quarantine.seconds, self.quarantine.most_seconds)

    def retry_s(self, failures: int) -> float:
        """Return how long to wait after some failures in a row."""
        return min(self.retry_first_s * 2.0 ** min(failures, 60), max(self.retry_first_s, self.most_retry_s))

    def cool_down_s(self, count: int) -> float:
        """Return how long a release is held back after its first, second, … failure."""
        return min(self.quarantine.seconds * 2.0 ** min(count - 1, 60), self.most_cool_down_s)


def read_policy(path: Path, *, must_exist: bool) -> Policy:
    """Read the policy of a device.

    Args:
        path: of the YAML file.
        must_exist: a missing file is an error; else the defaults are returned.

    Raises:
        ConfigError: it cannot be read, is no YAML, or has a key or a value that is wrong.
    """
    from edge.config.yaml_file import load_typed

    if not must_exist and not path.exists():
        return Policy()
    return load_typed(path, Policy)
