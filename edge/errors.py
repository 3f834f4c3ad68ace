"""The errors of finesight.

FinesightError
├── ConfigError        a YAML file, its keys or its values
├── BundleError        a bundle folder, its manifest or its files
├── GalleryError       a gallery store or generation
├── EngineError        an inference engine or a model file
├── CaptureError       a camera, a stream or an image
│   └── PictureError   an uploaded picture is refused
├── TaughtItemsError       what was taught on the device
├── OutboxError        the durable event queue
├── PublishError       the MQTT connection
│   └── RefusedError   the broker answered and said no
├── CommandError       a command that came over MQTT
├── SyncError          a repository, a download or a device folder
├── QuantizeError      export, calibration, gates, packing
└── TrainError         data sets, recipes, checkpoints
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pydantic import ValidationError


class FinesightError(Exception):
    """Base of all: which thing, what was found, what was expected."""


class ConfigError(FinesightError):
    """A configuration file is wrong."""


class BundleError(FinesightError):
    """A bundle is incomplete, altered or not for this runtime."""


class GalleryError(FinesightError):
    """A gallery is damaged or belongs to another embedding space."""


class EngineError(FinesightError):
    """A model cannot be loaded or run."""


class CaptureError(FinesightError):
    """A source cannot be opened or read."""


class PictureError(CaptureError):
    """An uploaded picture is refused: `reason` says why in one word that can be counted."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason  # empty, not_a_picture, too_large, truncated, broken


class TaughtItemsError(FinesightError):
    """What was taught on the device cannot be kept or read."""


class OutboxError(FinesightError):
    """An event cannot be stored."""


class PublishError(FinesightError):
    """The broker refused or is unreachable."""


class RefusedError(PublishError):
    """The broker answered and said no: credentials, client id, protocol."""


class CommandError(FinesightError):
    """A command is not understood, not allowed or cannot be carried out."""


class SyncError(FinesightError):
    """A repository or device folder cannot be read, verified or switched."""


class QuantizeError(FinesightError):
    """A model cannot be exported, quantised or packed."""


class TrainError(FinesightError):
    """A data set, recipe or checkpoint is unusable."""


def first_fault(error: ValidationError) -> str:
    """Where a document first differs from its schema, and how: `key.path: message`."""
    first = error.errors()[0]
    return f"{'.'.join(map(str, first['loc'])) or '(top)'}: {first['msg']}"
