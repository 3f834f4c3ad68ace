"""The Python API: recognise pictures in a program of your own.

    from edge import Recogniser

    shop = Recogniser.load("SHOP")
    for thing in shop.recognise("photo.jpg").objects:
        print(thing.label or thing.reason)

docs/how-to/python-api.md has the whole of it.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from edge.build import load_models, load_state
from edge.bundle.bundle import MANIFEST_NAME
from edge.config.schema import DeviceConfig, EngineConfig, RecognitionConfig
from edge.config.yaml_file import load_config
from edge.errors import BundleError, CaptureError, ConfigError, PictureError
from edge.imaging import image
from edge.imaging.jpeg_decode import FULL_SIZE, DecodedPicture, Reduction
from edge.recognition.loaded_models import LoadedModels
from edge.recognition.recognise_image import recognise_objects, recognise_picture, reduction_for
from edge.telemetry.timing import Timings
from edge.types import Attribute, Box, Category, Decision, Hit, Image, Match, Reason

Framing = Literal["whole", "detect"]
CONFIGURATIONS = ("device.yaml", "kiosk.yaml", "camera.yaml")  # in a folder, the first that exists
_STATE = ("current", "staged", "slots")  # in a state folder


@dataclass(frozen=True, slots=True)
class RecognisedObject:
    """One object in a picture: what it is, or the reason why it has no name."""

    box_px: Box  # x0 y0 x1 y1 in the upright picture, x1 and y1 exclusive
    detected_as: str | None  # label of the detector; None with framing "whole"
    category: Category | None  # name and score, 0..1; None: no category is likely enough
    match: Match | None  # item_id, label, score, margin, probability; None: unknown
    reason: Reason | None  # why there is no match; None exactly when there is one
    top: tuple[Hit, ...]  # nearest items, best first, at most five; also without a match
    # What near items say, such as its colour: name, value, confidence. Empty where the gallery has no attributes.
    attributes: tuple[Attribute, ...] = ()

    @property
    def label(self) -> str | None:
        """The name of the item; None: unknown."""
        return self.match.label if self.match else None

    @property
    def probability(self) -> float | None:
        """The probability that the match is right, 0..1; None without a match, or where the bundle has none to give."""
        return self.match.probability if self.match else None


@dataclass(frozen=True, slots=True)
class Recognition:
    """What one picture shows."""

    objects: tuple[RecognisedObject, ...]  # with framing "whole" exactly one; else by the detector's score, best first
    width: int  # of the upright picture, pixels
    height: int
    bundle: str  # bundle id
    gallery: str  # gallery generation


class Recogniser:
    """A bundle and a gallery, loaded. Several threads may call `recognise` of one Recogniser at once."""

    def __init__(self, models: LoadedModels, min_object_px: int = RecognitionConfig().min_object_px) -> None:
        """Wrap loaded models; see `load`.

        Args:
            models: bundle and gallery.
            min_object_px: objects whose shorter side is shorter are `too_small`.
        """
        self._models = models
        self._min_object_px = min_object_px

    @classmethod
    def load(cls, path: str | os.PathLike[str], gallery: str | os.PathLike[str] | None = None) -> Recogniser:
        """Load the models of a shop or device. This takes seconds; recognising takes milliseconds.

        Args:
            path: a folder with device.yaml, kiosk.yaml or camera.yaml (the first of them that exists), a configuration
                file, a state folder with an active bundle, or a bundle folder.
            gallery: gallery folder for a bundle folder; None: an empty gallery, in which everything is unknown.

        Raises:
            ConfigError: there is no such file or folder, or the configuration is invalid.
            BundleError: no bundle is active, it is damaged, or the gallery was embedded with another.
            GalleryError: the gallery is damaged.
            EngineError: a model cannot run on this machine.
        """
        folder = Path(path)
        if (folder / MANIFEST_NAME).is_file():
            return cls(load_models(folder, None if gallery is None else Path(gallery), EngineConfig()))
        if gallery is not None:
            raise ConfigError(f"{folder}: is no bundle folder; give a gallery together with a bundle folder only")
        if any((folder / name).exists() for name in _STATE):
            return cls.of_state(folder)
        return cls.of_device(load_config(_configuration(folder), os.environ))

    @classmethod
    def of_device(cls, config: DeviceConfig) -> Recogniser:
        """Load the active models of a configured device.

        Raises:
            FinesightError: as `load`.
        """
        models = load_state(config.state_dir, config.engine, config.gallery)
        return cls(models, config.recognition.min_object_px)

    @classmethod
    def of_state(cls, state_dir: Path) -> Recogniser:
        """Load the active models of a state folder, with the default engine.

        Raises:
            FinesightError: as `load`.
        """
        return cls(load_state(state_dir, EngineConfig()))

    @property
    def bundle(self) -> str:
        """The id of the bundle."""
        return self._models.bundle_id

    @property
    def gallery(self) -> str:
        """The generation of the gallery."""
        return self._models.gallery_id

    @property
    def has_detector(self) -> bool:
        """Whether `framing="detect"` works."""
        return self._models.stages.detector is not None

    def recognise(
        self,
        picture: Image | bytes | str | os.PathLike[str],
        framing: Framing = "whole",
        timings: Timings | None = None,
    ) -> Recognition:
        """Recognise what a picture shows.

        Args:
            picture: (height, width, 3) uint8 RGB pixels, an encoded picture, or the path of one. OpenCV's pixels are
                BGR: give `pixels[..., ::-1]`. JPEG, PNG, WebP, BMP, TIFF, GIF and PNM are read, and turned upright.
            framing: `whole`: one object fills the picture; `detect`: find the objects first.
            timings: gets the milliseconds of each stage; None: nobody needs them.

        Raises:
            CaptureError: the picture cannot be read.
            BundleError: `detect` with a bundle that has no detector.
            EngineError: a model failed.
        """
        timings = timings or Timings()
        decoded = _decode(picture, reduction_for(self._models) if framing == "whole" else FULL_SIZE)
        width, height = decoded.width, decoded.height
        if framing == "whole":
            decision = recognise_picture(self._models, decoded, self._min_object_px, timings)
            objects = [_describe((0.0, 0.0, float(width), float(height)), None, decision)]
        elif framing == "detect":
            if not self.has_detector:
                raise BundleError(
                    f"bundle {self.bundle} has no detector; use framing 'whole', or pack a detector into it"
                )
            objects = [
                _describe(detection.box_px, detection.label, decision)
                for detection, decision in recognise_objects(
                    self._models, decoded.image_rgb, self._min_object_px, timings
                )
            ]
        else:
            raise ConfigError(f"found framing {framing!r}, expected 'whole' or 'detect'")
        return Recognition(tuple(objects), width, height, self.bundle, self.gallery)


def _describe(box_px: Box, detected_as: str | None, decision: Decision) -> RecognisedObject:
    return RecognisedObject(
        box_px, detected_as, decision.category, decision.match, decision.reason, decision.top, decision.attributes
    )


def _configuration(path: Path) -> Path:
    """Return the configuration file that a path names."""
    if path.is_file():
        return path
    found = [path / name for name in CONFIGURATIONS if (path / name).is_file()]
    if found:
        return found[0]
    if not path.is_dir():
        raise ConfigError(f"{path}: no such file or folder")
    raise ConfigError(
        f"{path}: is no shop, device or bundle: it has no {', '.join(CONFIGURATIONS)}, no active bundle and no "
        f"{MANIFEST_NAME}"
    )


def _decode(picture: Any, reduction: Reduction) -> DecodedPicture:
    """Return the pixels of a picture, perhaps reduced."""
    if isinstance(picture, np.ndarray):
        if picture.dtype != np.uint8 or picture.ndim != 3 or picture.shape[2] != 3 or 0 in picture.shape:
            raise PictureError(
                "not_a_picture", f"found an array of {picture.dtype} {picture.shape}, expected uint8 (height, width, 3)"
            )
        return DecodedPicture(np.ascontiguousarray(picture), picture.shape[1], picture.shape[0])
    if isinstance(picture, bytes | bytearray | memoryview):
        return image.decode_reduced(bytes(picture), "picture", reduction)
    if isinstance(picture, str | os.PathLike):
        return image.read_reduced(Path(picture), reduction)
    kind = type(picture).__name__
    raise CaptureError(f"found a picture of type {kind}, expected a numpy array, bytes or a path")
