"""Which keys of a configuration hold secrets, and their values."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, get_args

from pydantic import BaseModel

from edge.config.schema import DeviceConfig
from edge.redact import secrets_in


def _secret_keys(tree: type[BaseModel]) -> Iterator[str]:
    """Yield the keys of a tree that are not printed: those with repr=False."""
    for name, field in tree.model_fields.items():
        if not field.repr:
            yield name
        for kind in _models_in(field.annotation):
            yield from _secret_keys(kind)


def _models_in(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for inner in get_args(annotation):
        yield from _models_in(inner)


SECRET_KEYS = frozenset(_secret_keys(DeviceConfig))
ADDRESS_KEYS = frozenset({"source", "upload_url"})  # of the secret keys: an address, of which a part is secret


def secret_values(tree: Any, key: str = "") -> set[str]:
    """Return every secret in a configuration, whether it is valid or not.

    Args:
        tree: what the YAML file holds, with `${variables}` replaced: mappings, lists and values.
        key: the one that it belongs to.
    """
    if isinstance(tree, dict):
        return {value for name, item in tree.items() for value in secret_values(item, _of(str(name), key))}
    if isinstance(tree, list):
        return {value for item in tree for value in secret_values(item, key)}
    if tree is None or isinstance(tree, (bool, float)):
        return set()
    text = str(tree)
    if key in SECRET_KEYS - ADDRESS_KEYS:
        return {text}
    # an address may be where none belongs, such as mqtt.host: admin:password@broker
    return secrets_in(text) if key in ADDRESS_KEYS or "@" in text or "://" in text else set()


def _of(name: str, parent: str) -> str:
    return name if name in SECRET_KEYS or parent not in SECRET_KEYS else parent
