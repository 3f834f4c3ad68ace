"""The YAML of a device's configuration, read into its typed tree. The YAML door."""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args, get_origin

import yaml
from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo

from edge.config.schema import DeviceConfig
from edge.errors import ConfigError

_LOGIN = re.compile(r"://[^/\s'\"]*@")
_VARIABLE = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)(?::-([^}]*))?\}")
_SECRETS = {"password", "token", "upload_token", "upload_url"}


def load_config(path: Path, environment: Mapping[str, str]) -> DeviceConfig:
    """Read a device's YAML file.

    Args:
        path: the file. Relative paths in it are relative to its folder.
        environment: where `${NAME}` and `${NAME:-default}` in values come from.

    Raises:
        ConfigError: names file and line, key path, what was found and what was expected.
    """
    return parse_config(read_text(path), path, path.parent, environment)


def read_text(path: Path) -> str:
    """Read the file's text.

    Raises:
        ConfigError: it cannot be read, or is no text.
    """
    try:
        return path.read_text(encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"{path}: cannot read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: found bytes that are not UTF-8 at offset {error.start}") from error


def parse_config(text: str, path: Path, folder: Path, environment: Mapping[str, str]) -> DeviceConfig:
    """Read a device's YAML.

    Args:
        text: of the file.
        path: how errors name it.
        folder: what relative paths are relative to.
        environment: where `${NAME}` and `${NAME:-default}` in values come from.

    Raises:
        ConfigError: names file and line, key path, what was found and what was expected.
    """
    try:
        root = yaml.compose(text, Loader=yaml.SafeLoader)
        raw = yaml.safe_load(text)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f":{mark.line + 1}" if mark else ""
        raise ConfigError(f"{path}{line}: not YAML: {getattr(error, 'problem', error)}") from error
    if not isinstance(raw, dict) or root is None:
        raise ConfigError(f"{path}: found {type(raw).__name__}, expected a mapping of keys")
    document = _Document(path, root)
    document.refuse_doubled_keys(root)
    try:
        return DeviceConfig.model_validate(document.fill_in(raw, environment, []), context=folder)
    except ValidationError as error:
        raise ConfigError("\n".join(document.describe(e) for e in error.errors())) from error


@dataclass(frozen=True, slots=True)
class _Document:
    """A YAML file, whose errors name the line."""

    path: Path
    root: yaml.Node

    def place(self, keys: list[str]) -> str:
        """The line of the deepest node that a key path reaches, from 1, and the path."""
        node, line = self.root, self.root.start_mark.line + 1
        for key in keys:
            if not isinstance(node, yaml.MappingNode):
                break
            found = next(((k, v) for k, v in node.value if k.value == key), None)
            if found is None:
                break
            line, node = found[0].start_mark.line + 1, found[1]
        return f"{self.path}:{line}: {'.'.join(keys) or '(top)'}"

    def refuse_doubled_keys(self, node: yaml.Node) -> None:
        """In YAML the last of two equal keys wins in silence: a camera that was copied and not renamed would vanish."""
        if isinstance(node, yaml.SequenceNode):
            for item in node.value:
                self.refuse_doubled_keys(item)
        if isinstance(node, yaml.MappingNode):
            seen: set[str] = set()
            for key, value in node.value:
                if key.value in seen:
                    where = f"{self.path}:{key.start_mark.line + 1}"
                    raise ConfigError(f"{where}: found key {key.value!r} twice, expected it once")
                seen.add(key.value)
                self.refuse_doubled_keys(value)

    def fill_in(self, value: Any, environment: Mapping[str, str], keys: list[str]) -> Any:
        """A value with its variables filled in; `keys` is where it stands."""
        if isinstance(value, dict):
            return {k: self.fill_in(item, environment, [*keys, str(k)]) for k, item in value.items()}
        if isinstance(value, list):
            return [self.fill_in(item, environment, [*keys, str(i)]) for i, item in enumerate(value)]
        if not isinstance(value, str):
            return value

        def replace(match: re.Match[str]) -> str:
            name, default = match.group(1), match.group(2)
            found = environment.get(name, default)
            if found is None:
                where = self.place(keys)
                raise ConfigError(f"{where}: ${{{name}}}: found no such environment variable, expected it set")
            return found

        return _VARIABLE.sub(replace, value)

    def describe(self, error: Any) -> str:
        """One of pydantic's errors: where, what was found, what was expected."""
        keys = [str(part) for part in error["loc"]]
        where = self.place(keys)
        if error["type"] == "extra_forbidden":
            valid = _valid_keys(keys[:-1])
            near = difflib.get_close_matches(keys[-1], valid, n=1)
            hint = f"expected {near[0]!r}" if near else f"expected one of {valid}"
            return f"{where}: found unknown key {keys[-1]!r}, {hint}"
        if error["type"] == "missing":
            return f"{where}: found no such key, expected it"
        return f"{where}: found {_printable(keys, error['input'])}: {error['msg']}"


def _printable(keys: list[str], value: Any) -> str:
    """A value as an error may show it: a password must not be printed back."""
    if not _SECRETS.isdisjoint(keys):
        return "***"
    if isinstance(value, (dict, list)):  # may hold one deeper down
        return "a mapping" if isinstance(value, dict) else "a list"
    return _LOGIN.sub("://***@", repr(value))[:80]


def _valid_keys(keys: list[str]) -> list[str]:
    """The keys that may stand below a key path."""
    annotation: Any = DeviceConfig
    for key in keys:
        if get_origin(annotation) is dict:  # the key is a name of the user's own: cameras.<name>
            annotation = get_args(annotation)[1]
        else:
            fields = _fields(annotation)
            annotation = fields[key].annotation if key in fields else None
    return sorted(_fields(annotation))


def _fields(annotation: Any) -> dict[str, FieldInfo]:
    """The fields of a tree type, or of the one inside `Tree | None`."""
    for kind in (annotation, *get_args(annotation)):
        if get_origin(kind) is None and isinstance(kind, type) and issubclass(kind, BaseModel):
            return {field.alias or name: field for name, field in kind.model_fields.items()}
    return {}
