"""The typed tree of a device's configuration.

Defaults live in the types, with their units; the file states only differences. A key that is not known is an error.
While a file is read, the validation context is its folder, which relative paths are relative to.
"""

from __future__ import annotations

import ipaddress
import re
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationInfo, field_validator, model_validator


def _absolute(path: Path, info: ValidationInfo) -> Path:
    return path if info.context is None else (info.context / path).resolve()


def _absolute_source(source: str, info: ValidationInfo) -> str:
    match = re.match(r"^(file|folder)://(?!/)([^?]+)(.*)$", source)
    if info.context is None or match is None:
        return source
    return f"{match[1]}://{_absolute(Path(match[2]), info)}{match[3]}"


Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]{0,63}$")]
LocalPath = Annotated[Path, AfterValidator(_absolute)]
Share = Annotated[float, Field(ge=0, le=1)]  # of the width or height of the picture
Point = tuple[Share, Share]  # x, y


class _Tree(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class ViewConfig(_Tree):
    """When the picture of a camera is no longer believed: nothing is recognised in it, and its state says why."""

    # Nothing new this long: frozen. Longer than the camera's longest distance between two key frames, for a still scene
    # may be sent as the same picture until the next one. None: never
    frozen_after_s: Annotated[float, Field(ge=5, le=3600)] | None = 60.0
    # Covered, black or blurred this long: obstructed. Not recognised from the first such picture on. None: never
    obstructed_after_s: Annotated[float, Field(ge=0.5, le=600)] | None = 3.0
    mask: tuple[tuple[Share, Share, Share, Share], ...] = ()  # x0 y0 x1 y1 of what changes in a frozen picture: a clock

    @field_validator("mask")
    @classmethod
    def _mask_is_ordered(cls, mask: tuple[tuple[float, float, float, float], ...]) -> Any:
        for x0, y0, x1, y1 in mask:
            if x0 >= x1 or y0 >= y1:
                raise ValueError(f"found {[x0, y0, x1, y1]}, expected x0 y0 x1 y1 with x0 < x1 and y0 < y1")
        return mask


class ZoneConfig(_Tree):
    """A part of the picture. An object is where the middle of its box's lower edge is."""

    polygon: Annotated[tuple[Point, ...], Field(min_length=3, max_length=64)]
    kind: Literal["include", "exclude"] = "include"  # with include zones, only objects in one are looked at and told
    dwell_s: Annotated[float, Field(ge=0)] = 0.0  # inside this long without a break, an object has stayed there


class LineConfig(_Tree):
    """A line that objects are counted across; left and right as seen from `from` looking to `to`."""

    start: Point = Field(alias="from")
    end: Point = Field(alias="to")

    @model_validator(mode="after")
    def _has_a_direction(self) -> LineConfig:
        if self.start == self.end:
            raise ValueError(f"found a line from {list(self.start)} to itself, expected two points")
        return self


class MotionConfig(_Tree):
    """The detector is asked only while something moves, or an object in view is not yet decided on."""

    sweep_s: Annotated[float, Field(gt=0, le=3600)] = 5.0  # it sees the whole picture this often all the same


class CameraConfig(_Tree):
    """One source of pictures."""

    # rtsp:// v4l2:// csi:// file:// folder:// or gst:<pipeline>; may hold a password
    source: Annotated[str, AfterValidator(_absolute_source)] = Field(repr=False)
    backend: Literal["auto", "opencv", "gstreamer"] = "auto"
    enabled: bool = True
    framing: Literal["detect", "whole_frame"] = "detect"  # whole_frame: the picture is the object (kiosk)
    pacing: Literal["real_time", "every_frame"] = "real_time"  # every_frame: files only, nothing dropped
    rtsp_transport: Literal["tcp", "udp"] = "tcp"
    latency_ms: Annotated[int, Field(ge=0, le=5000)] = 100  # jitter buffer of an RTSP camera
    open_timeout_s: Annotated[float, Field(gt=0, le=120)] = 10.0
    stall_timeout_s: Annotated[float, Field(gt=0, le=600)] = 5.0  # without a frame this long it is stalled
    # Mebibytes of its latest encoded video, kept for `edge replay`; by GStreamer only
    record_mib: Annotated[int, Field(ge=0)] = 0
    # None: the defaults for a live camera; nothing for a file or folder, whose pictures have no sensor noise
    view: ViewConfig | None = None
    zones: Annotated[dict[Name, ZoneConfig], Field(max_length=16)] = {}
    lines: Annotated[dict[Name, LineConfig], Field(max_length=16)] = {}
    motion: MotionConfig | None = None  # None: the detector sees every picture

    @model_validator(mode="after")
    def _places_need_boxes(self) -> CameraConfig:
        found = [name for name in ("zones", "lines", "motion") if getattr(self, name)]
        if found and self.framing == "whole_frame":
            raise ValueError(f"found {' and '.join(found)} with framing: whole_frame, expected framing: detect")
        return self


class HomeAssistantConfig(_Tree):
    """How Home Assistant finds the device by itself."""

    prefix: Name = "homeassistant"  # first level of the topics on which it discovers, as set in its MQTT integration


class MqttConfig(_Tree):
    """The broker events go to."""

    host: str = "localhost"
    port: Annotated[int, Field(ge=1, le=65535)] = 1883
    username: str | None = None
    password: str | None = Field(default=None, repr=False)
    client_id: str | None = None  # default: made from site, device and a random part
    root: Name = "finesight"  # first level of every topic
    version: Literal["3.1.1", "5"] = "3.1.1"
    keepalive_s: Annotated[int, Field(ge=5, le=3600)] = 30
    tls: bool = False
    tls_ca: LocalPath | None = None  # whom to trust; None: the authorities of the system
    tls_cert: LocalPath | None = None  # shown to a broker that asks for one
    tls_key: LocalPath | None = None  # of tls_cert, without a pass phrase; None: tls_cert holds it, too
    commands: bool = True  # obey cmd/<verb> and <camera>/enabled/set; who may send them is for the broker to say
    home_assistant: HomeAssistantConfig | None = None  # None: not announced to it
    frigate_mirror: bool = False  # tell frigate/events what changes, too, for automations that were made for Frigate

    @model_validator(mode="after")
    def _tls_files_are_used(self) -> MqttConfig:
        files = [name for name in ("tls_ca", "tls_cert", "tls_key") if getattr(self, name) is not None]
        if files and not self.tls:  # would talk, and send its password, in the clear
            raise ValueError(f"found {' and '.join(files)} without tls, expected tls: true")
        if self.tls_key is not None and self.tls_cert is None:
            raise ValueError("found tls_key without tls_cert, expected both")
        return self


class EngineConfig(_Tree):
    """What runs the models."""

    backend: Literal["auto", "onnxruntime", "onnxruntime-cuda", "openvino", "tensorrt"] = "auto"
    threads: Annotated[int, Field(ge=1, le=64)] = 1  # inside one model
    precision: Literal["shipped", "int8", "fp32"] = "shipped"  # shipped: what was faster where the bundle was packed


class SeekConfig(_Tree):
    """Taught things are looked for in the frames of cameras by the bundle's finder, though the detector misses them."""

    every_s: Annotated[float, Field(gt=0)] = 0.4  # between two searches of one camera; below track_gap_s, or tracks end
    items: Annotated[int, Field(ge=1, le=50)] = 3  # looked for in one search; the others take their turn
    looks: Annotated[int, Field(ge=1, le=8)] = 2  # pictures of each that are searched by


class RecognitionConfig(_Tree):
    """How often a tracked object is looked at. What counts as a match is in the bundle."""

    min_object_px: Annotated[int, Field(ge=4)] = 24  # shorter box side; smaller objects are too_small
    min_looks: Annotated[int, Field(ge=1)] = 3  # before an unclear object is called unknown
    max_looks: Annotated[int, Field(ge=1)] = 12  # of one object until it is decided
    look_interval_s: Annotated[float, Field(ge=0)] = 0.1  # between the first looks at one object, then longer
    recheck_s: Annotated[float, Field(gt=0)] = 3.0  # a decided object is looked at again at the latest
    # Of all objects of all cameras; None: as many as they ask for. With a limit, what is not recognised goes first,
    # and a blurred or small sight of an object waits for a better one and counts less
    looks_per_s: Annotated[float, Field(gt=0)] | None = None
    track_gap_s: Annotated[float, Field(gt=0)] = 1.0  # unseen this long, an object has left
    # Objects that have left are searched again in a gallery that comes later; kept in memory, without pictures
    recall_tracks: Annotated[int, Field(ge=0, le=100_000)] = 1000  # at most; 0: none
    recall_age_s: Annotated[float, Field(gt=0)] = 24 * 3600.0  # since they left
    # None: what the detector misses is not looked for. Needs a bundle with a finder, and a start to be switched on
    seek: SeekConfig | None = None


class GalleryConfig(_Tree):
    """When a gallery is told to be stale: it still answers, but is confidently wrong about what it does not know."""

    stale_after_days: Annotated[float, Field(gt=0)] | None = 30.0  # since it was made; None: never
    # Of the probabilities of the latest 200 objects' answers, from those of the first 200 with this gallery: the
    # largest gap between the two cumulative distributions. Chance alone exceeds 0.2 once in 1,500 times. None: any
    drift: Annotated[float, Field(gt=0, le=1)] | None = 0.3


class OutboxConfig(_Tree):
    """Events that wait for the broker."""

    max_bytes: Annotated[int, Field(ge=65536)] = 64 * 1024 * 1024
    max_age_s: Annotated[float, Field(gt=0)] = 7 * 24 * 3600.0


class HealthConfig(_Tree):
    """Where health and metrics are served over HTTP: /healthz, /readyz, /status, /metrics."""

    host: str = "127.0.0.1"  # whoever reaches another one reads the names of cameras, for nobody is asked who they are
    port: Annotated[int, Field(ge=0, le=65535)] = 9464  # 0: any free one, which the log names


class TlsConfig(_Tree):
    """What a server shows to those who connect; both files are read when it starts."""

    certificate: LocalPath  # PEM: its own, then those between it and an authority that the clients trust
    key: LocalPath  # PEM, of the certificate, without a pass phrase


class KioskConfig(_Tree):
    """The touch page and look-ups over HTTP."""

    camera: Name  # the one people hold things before; its framing is whole_frame
    host: str = "127.0.0.1"  # another one needs a token
    port: Annotated[int, Field(ge=0, le=65535)] = 8090  # 0: any free one, which the log names
    token: Annotated[str, Field(min_length=8)] | None = Field(default=None, repr=False)  # asked of whoever connects
    tls: TlsConfig | None = None  # None: plain http; pictures and the token are read by whoever listens in between
    looks: Annotated[int, Field(ge=1, le=8)] = 4  # pictures taken of a thing that is taught
    max_taught: Annotated[int, Field(ge=1, le=1000)] = 200  # things; a start embeds every look of each, six times
    upload_url: str | None = Field(default=None, repr=False)  # http(s); what was taught is PUT to <upload_url>/<id>.zip
    upload_token: str | None = Field(default=None, repr=False)  # sent as Authorization: Bearer

    @field_validator("upload_url")
    @classmethod
    def _is_http(cls, url: str | None) -> str | None:
        if url is not None and not re.match(r"https?://[^/]", url):
            raise ValueError("expected http:// or https:// and a host")
        return url

    @model_validator(mode="after")
    def _strangers_need_a_token(self) -> KioskConfig:
        if self.token is None and not is_loopback(self.host):
            raise ValueError(f"found host {self.host!r} without a token, expected a token or a loopback address")
        return self


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach a host."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


class DeviceConfig(_Tree):
    """Everything one device is told."""

    site: Name = "site"
    device: Name = "device"
    state_dir: LocalPath = Field(default=Path("/var/lib/finesight"), validate_default=True)
    cameras: dict[Name, CameraConfig] = {}
    mqtt: MqttConfig | None = None  # None: events stay in the outbox; `edge demo` brings a broker of its own
    engine: EngineConfig = EngineConfig()
    recognition: RecognitionConfig = RecognitionConfig()
    gallery: GalleryConfig = GalleryConfig()
    outbox: OutboxConfig = OutboxConfig()
    health: HealthConfig | None = None  # None: not served
    kiosk: KioskConfig | None = None  # None: not served

    @field_validator("cameras")
    @classmethod
    def _some_camera(cls, cameras: dict[str, CameraConfig]) -> dict[str, CameraConfig]:
        if not any(camera.enabled for camera in cameras.values()):
            raise ValueError("found no enabled camera, expected at least one")
        if "cmd" in cameras:  # its topics would be those of commands
            raise ValueError("found a camera named cmd, expected another name")
        return cameras

    @field_validator("kiosk")
    @classmethod
    def _kiosk_has_a_camera(cls, kiosk: KioskConfig | None, info: ValidationInfo) -> KioskConfig | None:
        cameras: dict[str, CameraConfig] = info.data.get("cameras", {})
        if kiosk is not None and cameras:
            fit = [name for name, camera in cameras.items() if camera.enabled and camera.framing == "whole_frame"]
            if kiosk.camera not in fit:
                expected = f"one of {fit}" if fit else "one with framing: whole_frame"
                raise ValueError(f"found camera {kiosk.camera!r}, expected {expected}, enabled")
        return kiosk
