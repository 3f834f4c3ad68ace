"""Which commands the owner of a device allows: the part `commands` of `agent.yaml`.

commands:
  allow: [sync, rollback]   # default: none
  support_url: https://support.example.com/bundles   # where support-bundle puts its archive
  support_token_env: SUPPORT_TOKEN   # the environment variable with the token for it
  config_trial_s: 120   # seconds after which all cameras must be back under a configuration from afar
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field, field_validator

Verb = Literal["sync", "activate", "rollback", "prove", "support-bundle", "config"]
VERBS: tuple[str, ...] = get_args(Verb)
ELSEWHERE = "restart_camera"  # `edge run` takes it, on its own topic
_LOOPBACK = re.compile(r"http://(127\.0\.0\.1|localhost|\[::1\])(:[0-9]{1,5})?(/[!-~]*)?")
_SECURE = re.compile(r"https://[!-~]{1,900}")


class Commands(BaseModel):
    """What a person may have this device do from afar."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    allow: Annotated[tuple[Verb, ...], Field(max_length=32)] = ()  # none: every command is refused
    support_url: str | None = None  # a folder on a server that takes PUT; None: support-bundle is refused
    support_token_env: Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]{0,79}$")] | None = None  # None: no token
    support_ca_file: Path | None = None  # trust only the certificate authorities in this PEM file; None: the system's
    config_trial_s: Annotated[float, Field(ge=5, le=3600, allow_inf_nan=False)] = 120.0  # seconds to be back online
    support_mib: Annotated[int, Field(ge=1, le=1024)] = 32  # largest archive

    @field_validator("support_url")
    @classmethod
    def _is_secure(cls, url: str | None) -> str | None:
        if url is not None and not (_SECURE.fullmatch(url) or _LOOPBACK.fullmatch(url)):
            raise ValueError("expected an address that starts with https://")
        return url
