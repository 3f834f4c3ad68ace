"""A signed part of the configuration of devices: keys of `device.yaml` that an operator changes from afar.

rollout/<line>.config.<name>.json      ConfigFragment      role rollout
"""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field

from gallery_sync.formats.fields import Document, Name, Sequence, Time
from gallery_sync.formats.rollouts import Person, Selector


class ConfigFragment(Document):
    """Keys that replace those of a device's own file, see edge.config for what they mean."""

    kind: ClassVar[str] = "configuration fragment"

    schema_version: Literal[1] = Field(default=1, alias="schema")
    line: Name
    name: Name
    revision: Sequence
    selector: Selector = Selector(terms=[])  # other devices refuse it
    values: Annotated[dict[str, Any], Field(max_length=100)]
    by: Person
    at: Time


def config_target(line: str, name: str) -> str:
    """Return the target path of a fragment."""
    return f"rollout/{line}.config.{name}.json"


def is_config(line: str, path: str) -> bool:
    """Return whether a target path is that of a fragment."""
    name = path.removeprefix(f"rollout/{line}.config.").removesuffix(".json")
    return path == config_target(line, name) and name != "" and "/" not in name
