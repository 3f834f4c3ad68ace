"""Read a device's YAML file into the typed configuration. The only user of PyYAML on the device."""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar, get_args, get_origin

import yaml
from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo

from edge.config.schema import DeviceConfig
from edge.config.secret_values import SECRET_KEYS, secret_values
from edge.errors import ConfigError
from edge.redact import MARK
from edge.telemetry.known_secrets import hide, remember

_Typed = TypeVar("_Typed", bound=BaseModel)
_VARIABLE = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)(?::-([^}]*))?\}")
_QUOTED = re.compile(r"'([^']*)'")
_PLAIN_KEY = re.compile(r"[\w .-]{0,64}")  # `{password:abc}` has the key password:abc


def load_config(path: Path, environment: Mapping[str, str]) -> DeviceConfig:
    """Read a device's YAML file.

    Args:
        path: the file. Relative paths in it are relative to its folder.
        environment: values of `${NAME}` and `${NAME:-default}`.

    Raises:
        ConfigError: names file and line, key path, the problem and what to do.
    """
    return parse_config(read_text(path), path, path.parent, environment)


def read_text(path: Path) -> str:
    """Read the file's text.

    Raises:
        ConfigError: the file cannot be read or is not UTF-8.
    """
    try:
        return path.read_text(encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"{path}: cannot read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: byte {error.start} is not UTF-8; save the file as UTF-8") from error


def parse_config(text: str, path: Path, folder: Path, environment: Mapping[str, str]) -> DeviceConfig:
    """Parse a device's YAML.

    Args:
        text: of the file.
        path: of the file, for error messages.
        folder: that relative paths are relative to.
        environment: values of `${NAME}` and `${NAME:-default}`.

    Raises:
        ConfigError: names file and line, key path, the problem and what to do.
    """
    return read_values(text, path, folder, environment).config()


@dataclass(frozen=True, slots=True)
class Values:
    """What a device's YAML says, with its variables replaced, before it is checked."""

    document: _Document
    values: dict[str, Any]
    folder: Path  # that relative paths are relative to

    def config(self) -> DeviceConfig:
        """Return the configuration.

        Raises:
            ConfigError: names file and line, key path, the problem and what to do.
        """
        return _validated(self.document, self.values, self.folder)


def typed_values(values: dict[str, Any], where: str, folder: Path | None = None) -> DeviceConfig:
    """Return the configuration of values that are in no file.

    Args:
        values: of all keys.
        where: they come from, for messages.
        folder: that relative paths are relative to; None: they stay as they are.

    Raises:
        ConfigError: names where, key path, the problem and what to do.
    """
    remember(secret_values(values))
    return _validated(_Document(where, None), values, folder)


def _validated(document: _Document, values: dict[str, Any], folder: Path | None) -> DeviceConfig:
    try:
        return DeviceConfig.model_validate(values, context=folder)
    except ValidationError as error:
        raise ConfigError("\n".join(document.describe(e) for e in error.errors())) from error


def read_values(text: str, path: Path, folder: Path, environment: Mapping[str, str]) -> Values:
    """Read a device's YAML and replace its variables; the arguments are those of `parse_config`.

    Raises:
        ConfigError: it is no YAML or no mapping, has a key twice, or a variable is not set.
    """
    try:
        root, raw = _load(text, path)
        if not isinstance(raw, dict) or root is None:
            raise ConfigError(
                f"{path}: this is not a mapping of keys; start the file with keys such as `site:` and `cameras:`"
            )
        document = _Document(path, root)
        document.reject_duplicate_keys(root)
        substituted = document.substitute_variables(raw, environment, [])
        remember(secret_values(substituted))
    except RecursionError as error:
        raise ConfigError(
            f"{path}: nested too deeply, or an alias contains itself; remove levels or the alias"
        ) from error
    return Values(document, substituted, folder)


def load_mapping(path: Path) -> dict[str, Any]:
    """Read a YAML file that is a mapping of keys, as it is.

    Raises:
        ConfigError: it cannot be read, is no YAML or no mapping, or has a key twice.
    """
    try:
        root, raw = _load(read_text(path), path)
        if not isinstance(raw, dict) or root is None:
            raise ConfigError(f"{path}: this is not a mapping of keys; start the file with keys")
        _Document(path, root).reject_duplicate_keys(root)
    except RecursionError as error:
        raise ConfigError(
            f"{path}: nested too deeply, or an alias contains itself; remove levels or the alias"
        ) from error
    return raw


def load_typed(path: Path, kind: type[_Typed]) -> _Typed:
    """Read another YAML file, which is a mapping of keys; an empty one has no keys.

    Args:
        path: the file.
        kind: its typed tree, which rejects unknown keys.

    Raises:
        ConfigError: names file and line, key path, the problem and what to do.
    """
    root, raw = _load(read_text(path), path)
    if raw is None or root is None:
        return kind()
    if not isinstance(raw, dict):
        raise ConfigError(f"{path}: this is not a mapping of keys; start the file with keys")
    document = _Document(path, root, kind)
    document.reject_duplicate_keys(root)
    try:
        return kind.model_validate(raw)
    except ValidationError as error:
        raise ConfigError("\n".join(document.describe(e) for e in error.errors())) from error


def _load(text: str, path: Path) -> tuple[yaml.Node | None, Any]:
    """Return the nodes of a YAML text, which hold line numbers, and its values."""
    try:
        return yaml.compose(text, Loader=yaml.SafeLoader), yaml.safe_load(text)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f":{mark.line + 1}" if mark else ""
        problem = _without_quotes(str(getattr(error, "problem", error)))
        fix = "; put text with such marks into quotes" if MARK in problem or "cannot start" in problem else ""
        raise ConfigError(f"{path}{line}: not YAML: {problem}{fix}") from None  # whose text quotes the line
    except (
        ValueError,
        LookupError,
        AttributeError,
        TypeError,
    ) as error:  # PyYAML does not catch the error of 2026-13-01
        problem = _without_quotes(str(error))
        raise ConfigError(f"{path}: YAML cannot convert a value ({problem}); put text into quotes") from None


def _without_quotes(problem: str) -> str:
    """Return PyYAML's words without what it quotes, but for single marks and its own '<block end>'.

    The rest may be a secret: `password: *abc` names an alias.
    """
    return _QUOTED.sub(lambda quoted: quoted[0] if len(quoted[1]) == 1 or quoted[1][:1] == "<" else MARK, problem)


@dataclass(frozen=True, slots=True)
class _Document:
    """A parsed YAML file, for error messages that name the line."""

    path: Path | str
    root: yaml.Node | None  # None: it was not read from a file, and has no lines
    kind: type[BaseModel] = DeviceConfig

    def locate(self, keys: list[str]) -> str:
        """Return file and line of the deepest node on a key path, and the path."""
        path = ".".join(map(shown_key, keys)) or "(top)"
        if self.root is None:
            return f"{self.path}: {path}"
        node, line = self.root, self.root.start_mark.line + 1
        for key in keys:
            if not isinstance(node, yaml.MappingNode):
                break
            found = next(((k, v) for k, v in node.value if k.value == key), None)
            if found is None:
                break
            line, node = found[0].start_mark.line + 1, found[1]
        return f"{self.path}:{line}: {path}"

    def reject_duplicate_keys(self, node: yaml.Node) -> None:
        """Raise ConfigError for a duplicate key. YAML silently keeps the last one, so a copied camera would vanish."""
        if isinstance(node, yaml.SequenceNode):
            for item in node.value:
                self.reject_duplicate_keys(item)
        if isinstance(node, yaml.MappingNode):
            seen: set[str] = set()
            for key, value in node.value:
                if key.value in seen:
                    where = f"{self.path}:{key.start_mark.line + 1}"
                    raise ConfigError(f"{where}: key {shown_key(key.value)!r} appears twice; remove or rename one")
                seen.add(key.value)
                self.reject_duplicate_keys(value)

    def substitute_variables(self, value: Any, environment: Mapping[str, str], keys: list[str]) -> Any:
        """Return a value with its `${variables}` replaced; `keys` is its key path."""
        if isinstance(value, dict):
            return {k: self.substitute_variables(item, environment, [*keys, str(k)]) for k, item in value.items()}
        if isinstance(value, list):
            return [self.substitute_variables(item, environment, [*keys, str(i)]) for i, item in enumerate(value)]
        if not isinstance(value, str):
            return value

        def replace(match: re.Match[str]) -> str:
            name, default = match.group(1), match.group(2)
            found = environment.get(name, default)
            if found is None:
                where = self.locate(keys)
                raise ConfigError(f"{where}: variable {name} is not set; set it or write ${{{name}:-default}}")
            return found

        return _VARIABLE.sub(replace, value)

    def describe(self, error: Any) -> str:
        """Return one of pydantic's errors as a message that says where and what."""
        keys = [str(part) for part in error["loc"]]
        where = self.locate(keys)
        if error["type"] == "extra_forbidden":
            valid = valid_keys(keys[:-1], self.kind)
            near = difflib.get_close_matches(keys[-1], valid, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"valid keys are {', '.join(valid)}"
            return f"{where}: unknown key {shown_key(keys[-1])!r}; {hint}"
        if error["type"] == "missing":
            return f"{where}: this key is missing; add it"
        if error["type"] == "value_error":  # ours, from edge.config.schema
            return f"{where}: {error['ctx']['error']}"
        return f"{where}: found {_printable(keys, error)}: {error['msg']}"


def _printable(keys: list[str], error: Any) -> str:
    """Return the value of one of pydantic's errors as a message may show it."""
    value = error["input"]
    if not SECRET_KEYS.isdisjoint(keys):
        return MARK
    if isinstance(value, (dict, list)):  # may contain a password
        return "a mapping" if isinstance(value, dict) else "a list"
    if isinstance(value, str) and error["type"].endswith("_type"):  # a text where keys belong: password:abc
        return "a text"
    return hide(repr(value))[:80]


def shown_key(key: Any) -> str:
    """Return a key as a message may show it: a secret may be where a key belongs."""
    match = _PLAIN_KEY.match(str(key))
    start = match[0] if match else ""
    return start if start == str(key) else f"{start}{MARK}"


def valid_keys(keys: list[str], kind: type[BaseModel]) -> list[str]:
    """Return the valid keys below a key path."""
    annotation: Any = kind
    for key in keys:
        if get_origin(annotation) is dict:  # the key is a name that the user chose: cameras.<name>
            annotation = get_args(annotation)[1]
        else:
            fields = _fields(annotation)
            annotation = fields[key].annotation if key in fields else None
    return sorted(_fields(annotation))


def _fields(annotation: Any) -> dict[str, FieldInfo]:
    """Return the fields of a configuration type, or of the one in `Type | None`."""
    for kind in (annotation, *get_args(annotation)):
        if get_origin(kind) is None and isinstance(kind, type) and issubclass(kind, BaseModel):
            return {field.alias or name: field for name, field in kind.model_fields.items()}
    return {}
