"""The errors of finesight.

FinesightError
├── ConfigError        a YAML file, its keys or its values
├── BundleError        a bundle folder, its manifest or its files
├── GalleryError       a gallery store or generation
├── EngineError        an inference engine or a model file
│   ├── GpuError       the GPU itself: missing, lost, or its driver is too old
│   └── NotLoadedError one model that cannot be loaded now; the others run
├── CaptureError       a camera, a stream or an image
│   └── PictureError   an uploaded picture that is rejected
│       └── BusyError  too many of them at once
├── TaughtItemsError   items taught on the device
├── UploadError        a file that is sent to a server
│   └── FileRefusedError  the server does not take this one
├── OutboxError        the durable event queue
├── PublishError       the MQTT connection
│   ├── RefusedError   the broker refused the connection or subscription
│   └── MessageError   one message cannot be sent; the connection stays
├── CommandError       a command received over MQTT
├── ConsoleError       a request to the console that cannot be done
├── SyncError          a repository, a download or a device folder
├── DataError          data sets and annotation files
├── QuantizeError      export, calibration, gates, packing
└── TrainError         recipes, training, checkpoints
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from edge import __version__

if TYPE_CHECKING:
    from pydantic import ValidationError


_SHOWN = 500  # characters of a text from outside in a message


class FinesightError(Exception):
    """The base of all finesight errors. The text says which thing failed, why, and what to do."""

    def __str__(self) -> str:
        """Return the text, printable also if it names a file whose name is not UTF-8."""
        return super().__str__().encode("utf-8", "backslashreplace").decode()


class ConfigError(FinesightError):
    """A configuration file is wrong."""


class BundleError(FinesightError):
    """A bundle is incomplete, altered or not for this runtime."""


class GalleryError(FinesightError):
    """A gallery is damaged or belongs to another embedding space."""


class EngineError(FinesightError):
    """A model cannot be loaded or run."""


class GpuError(EngineError):
    """The GPU is missing or lost, or its driver is too old. No engine of this process can use it any more."""


class NotLoadedError(EngineError):
    """A model cannot be loaded now. It is tried again later; models that are loaded run."""


class CaptureError(FinesightError):
    """A source cannot be opened or read."""


class PictureError(CaptureError):
    """An uploaded picture is rejected; `reason` is a code for the counters."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason  # empty, not_a_picture, too_large, truncated, broken; of uploads also slow, left, busy


class BusyError(PictureError):
    """Too many pictures are uploaded; try again after `retry_after_s`."""

    def __init__(self, message: str, retry_after_s: int) -> None:
        super().__init__("busy", message)
        self.retry_after_s = retry_after_s


class TaughtItemsError(FinesightError):
    """Taught items cannot be stored or read."""


class UploadError(FinesightError):
    """A file cannot be sent to a server now."""


class FileRefusedError(UploadError):
    """The server does not take this file, for what it is; another one may pass."""


class OutboxError(FinesightError):
    """An event cannot be stored."""


class PublishError(FinesightError):
    """The broker is unreachable or refused; `code` is its reason code (MQTT 5), if it gave one."""

    def __init__(self, message: str, code: int | None = None) -> None:
        super().__init__(message)
        self.code = code


class RefusedError(PublishError):
    """The broker refused: credentials, client id, protocol or topic."""


class MessageError(PublishError):
    """One message cannot be sent: its topic or its size is not allowed in MQTT. The connection stays."""


class CommandError(FinesightError):
    """A command is invalid, not allowed or cannot be carried out."""


class ConsoleError(FinesightError):
    """A request to the console cannot be done; `reason` is a code for programs, such as not_found or conflict."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


class SyncError(FinesightError):
    """A repository or device folder cannot be read, verified or switched."""


class DataError(FinesightError):
    """A data set or an annotation file cannot be read or written."""


class QuantizeError(FinesightError):
    """A model cannot be exported, quantised or packed."""


class TrainError(FinesightError):
    """A recipe, a training run or a checkpoint is unusable."""


def first_validation_error(error: ValidationError) -> str:
    """Return the first validation error of a document as `key.path: message`; a later format in a plain sentence."""
    first = error.errors()[0]
    expected = str(first.get("ctx", {}).get("expected"))  # absent where the number is too large to be read
    if first["loc"][-1:] == ("schema",) and isinstance(first["input"], int) and expected.isdecimal():
        return unread_format(first["input"], int(expected))
    return one_line(f"{'.'.join(map(str, first['loc'])) or '(top)'}: {first['msg']}")


def one_line(text: str) -> str:
    """Return text from outside as one line of bounded length that a terminal and a log can show."""
    shown = "".join(character if character.isprintable() else ascii(character)[1:-1] for character in text[:_SHOWN])
    return shown if len(text) <= _SHOWN else f"{shown}…"


def first_line(error: Exception) -> str:
    """Return the first line of a library's error, of bounded length; its type where it says nothing."""
    return (str(error).splitlines() or [type(error).__name__])[0][:300]


def unread_format(found: int, newest: int) -> str:
    """Say that a file has a format of another version, and what to do."""
    return (
        f"it has format {found}, and finesight {__version__} reads up to format {newest}; "
        f"update finesight here, or make the file again with finesight {__version__}"
    )
