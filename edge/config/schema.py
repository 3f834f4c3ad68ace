"""The typed tree of a device's configuration.

Defaults are in the types, with their units; the file states only differences. An unknown key is an error. While a
file is read, the validation context is the folder that relative paths are relative to.
"""

from __future__ import annotations

import ipaddress
import re
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationInfo, field_validator, model_validator


def _absolute_path(path: Path, info: ValidationInfo) -> Path:
    return path if info.context is None else (info.context / path).resolve()


def _absolute_source(source: str, info: ValidationInfo) -> str:
    match = re.match(r"^(file|folder)://(?!/)([^?]+)(.*)$", source)
    if info.context is None or match is None:
        return source
    return f"{match[1]}://{_absolute_path(Path(match[2]), info)}{match[3]}"


Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]{0,63}$")]
LocalPath = Annotated[Path, AfterValidator(_absolute_path)]
Share = Annotated[float, Field(ge=0, le=1)]  # of the width or height of the picture
Point = tuple[Share, Share]  # x, y


class _Tree(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class ViewConfig(_Tree):
    """When a camera counts as frozen or obstructed. Its pictures are then not recognised, and its state says why."""

    # Frozen after this long without anything new. Choose more than the camera's longest key frame interval: an encoder
    # may send a still scene as the same picture until the next key frame. None: never frozen
    frozen_after_s: Annotated[float, Field(ge=5, le=3600)] | None = 60.0
    # Obstructed after this long covered, black or blurred; no such picture is recognised. None: never obstructed
    obstructed_after_s: Annotated[float, Field(ge=0.5, le=600)] | None = 3.0
    mask: tuple[tuple[Share, Share, Share, Share], ...] = ()  # x0 y0 x1 y1 of what changes when frozen: a clock

    @field_validator("mask")
    @classmethod
    def _mask_is_ordered(cls, mask: tuple[tuple[float, float, float, float], ...]) -> Any:
        for x0, y0, x1, y1 in mask:
            if x0 >= x1 or y0 >= y1:
                raise ValueError(f"found {[x0, y0, x1, y1]}, expected x0 y0 x1 y1 with x0 < x1 and y0 < y1")
        return mask


class ZoneConfig(_Tree):
    """A part of the picture. An object is in it if the middle of the lower edge of its box is."""

    polygon: Annotated[tuple[Point, ...], Field(min_length=3, max_length=64)]
    kind: Literal["include", "exclude"] = "include"  # with include zones, only objects in one are recognised
    dwell_s: Annotated[float, Field(ge=0)] = 0.0  # events name the zone once an object has stayed this long


class LineConfig(_Tree):
    """A line whose crossings are counted; left and right as seen from `from` looking towards `to`."""

    start: Point = Field(alias="from")
    end: Point = Field(alias="to")

    @model_validator(mode="after")
    def _has_a_direction(self) -> LineConfig:
        if self.start == self.end:
            raise ValueError(f"the line starts and ends at {list(self.start)}; give two points")
        return self


class MotionConfig(_Tree):
    """The detector runs only while something moves, or while an object in view is undecided."""

    sweep_s: Annotated[float, Field(gt=0, le=3600)] = 5.0  # the detector runs at least this often


class CameraConfig(_Tree):
    """One camera, file or folder of pictures."""

    # rtsp:// v4l2:// csi:// file:// folder:// or gst:<pipeline>; may contain a password
    source: Annotated[str, AfterValidator(_absolute_source)] = Field(repr=False)
    backend: Literal["auto", "opencv", "gstreamer"] = "auto"
    enabled: bool = True
    framing: Literal["detect", "whole_frame"] = "detect"  # whole_frame: the object fills the picture (kiosk)
    pacing: Literal["real_time", "every_frame"] = "real_time"  # every_frame: files and folders only, drops nothing
    rtsp_transport: Literal["tcp", "udp"] = "tcp"
    latency_ms: Annotated[int, Field(ge=0, le=5000)] = 100  # jitter buffer of an RTSP camera
    open_timeout_s: Annotated[float, Field(gt=0, le=120)] = 10.0
    stall_timeout_s: Annotated[float, Field(gt=0, le=600)] = 5.0  # stalled after this long without a frame
    # Mebibytes of the latest encoded video to keep for `edge replay`; GStreamer only
    record_mib: Annotated[int, Field(ge=0)] = 0
    # None: the defaults for a camera; no checks for a file or folder, whose pictures have no sensor noise
    view: ViewConfig | None = None
    zones: Annotated[dict[Name, ZoneConfig], Field(max_length=16)] = {}
    lines: Annotated[dict[Name, LineConfig], Field(max_length=16)] = {}
    motion: MotionConfig | None = None  # None: the detector runs on every picture

    @model_validator(mode="after")
    def _zones_lines_and_motion_need_detections(self) -> CameraConfig:
        found = [name for name in ("zones", "lines", "motion") if getattr(self, name)]
        if found and self.framing == "whole_frame":
            raise ValueError(f"{' and '.join(found)} cannot be used with framing: whole_frame; set framing: detect")
        return self


class HomeAssistantConfig(_Tree):
    """MQTT discovery of Home Assistant."""

    prefix: Name = "homeassistant"  # first level of the discovery topics, as set in its MQTT integration


class MqttConfig(_Tree):
    """The broker that receives the events."""

    host: str = "localhost"
    port: Annotated[int, Field(ge=1, le=65535)] = 1883
    username: str | None = None
    password: str | None = Field(default=None, repr=False)
    client_id: str | None = None  # default: site, device and a random part
    root: Name = "finesight"  # first level of every topic
    version: Literal["3.1.1", "5"] = "3.1.1"
    keepalive_s: Annotated[int, Field(ge=5, le=3600)] = 30
    tls: bool = False
    tls_ca: LocalPath | None = None  # trusted authorities; None: those of the system
    tls_cert: LocalPath | None = None  # client certificate, for a broker that asks for one
    tls_key: LocalPath | None = None  # key of tls_cert, without a pass phrase; None: tls_cert contains it
    commands: bool = True  # accept cmd/<verb> and <camera>/enabled/set; the broker decides who may send them
    home_assistant: HomeAssistantConfig | None = None  # None: no discovery
    frigate_mirror: bool = False  # also publish to frigate/events, for automations written for Frigate

    @model_validator(mode="after")
    def _tls_files_are_used(self) -> MqttConfig:
        files = [name for name in ("tls_ca", "tls_cert", "tls_key") if getattr(self, name) is not None]
        if files and not self.tls:  # else the device would send its password unencrypted
            raise ValueError(f"{' and '.join(files)} without tls: true; set tls: true")
        if self.tls_key is not None and self.tls_cert is None:
            raise ValueError("tls_key without tls_cert; set both")
        return self


class EngineConfig(_Tree):
    """The library that runs the models."""

    backend: Literal["auto", "onnxruntime", "onnxruntime-cuda", "openvino", "tensorrt"] = "auto"
    threads: Annotated[int, Field(ge=1, le=64)] = 1  # inside one model
    precision: Literal["shipped", "int8", "fp32"] = "shipped"  # shipped: the faster one where the bundle was packed


class SeekConfig(_Tree):
    """The bundle's finder searches camera frames for taught items that the detector misses."""

    every_s: Annotated[float, Field(gt=0)] = (
        0.4  # between two searches of a camera; less than track_gap_s, or tracks end
    )
    items: Annotated[int, Field(ge=1, le=50)] = 3  # in one search; the others take turns
    looks: Annotated[int, Field(ge=1, le=8)] = 2  # pictures of each item to search with


class RecognitionConfig(_Tree):
    """How often to embed a tracked object. The bundle defines what counts as a match."""

    min_object_px: Annotated[int, Field(ge=4)] = 24  # shorter side of the box; smaller objects are too_small
    min_looks: Annotated[int, Field(ge=1)] = 3  # embeddings of an unclear object before it is reported as unknown
    max_looks: Annotated[int, Field(ge=1)] = 12  # embeddings of one object until it is decided
    look_interval_s: Annotated[float, Field(ge=0)] = 0.1  # between the first embeddings of an object, then longer
    recheck_s: Annotated[float, Field(gt=0)] = 3.0  # at the latest, a decided object is embedded again
    # Embeddings of all objects of all cameras; None: no limit. With a limit, unrecognised objects go first, and a
    # blurred or small view of an object waits for a better one and counts less
    looks_per_s: Annotated[float, Field(gt=0)] | None = None
    track_gap_s: Annotated[float, Field(gt=0)] = 1.0  # an object that is unseen this long has left
    # Objects that have left are searched again in the next gallery; kept in memory, without pictures
    recall_tracks: Annotated[int, Field(ge=0, le=100_000)] = 1000  # at most; 0: none
    recall_age_s: Annotated[float, Field(gt=0)] = 24 * 3600.0  # since they left
    # None: no search for items that the detector misses. Needs a bundle with a finder; switching it on needs a restart
    seek: SeekConfig | None = None


class GalleryConfig(_Tree):
    """When a gallery is reported as stale. It still answers, but is confidently wrong about items it does not know."""

    stale_after_days: Annotated[float, Field(gt=0)] | None = 30.0  # since it was built; None: never
    # Largest allowed gap between two cumulative distributions: the probabilities of the answers for the latest 200
    # objects, and for the first 200 with this gallery. Chance alone exceeds 0.2 once in 1,500 times. None: no limit
    drift: Annotated[float, Field(gt=0, le=1)] | None = 0.3


class OutboxConfig(_Tree):
    """The queue of events that wait for the broker."""

    max_bytes: Annotated[int, Field(ge=65536)] = 64 * 1024 * 1024
    max_age_s: Annotated[float, Field(gt=0)] = 7 * 24 * 3600.0


class HealthConfig(_Tree):
    """The HTTP server for health and metrics: /healthz, /readyz, /status, /metrics."""

    host: str = "127.0.0.1"  # anybody who can reach another address can read camera names: there is no login
    port: Annotated[int, Field(ge=0, le=65535)] = 9464  # 0: any free port; the log names it


class TlsConfig(_Tree):
    """The certificate of a server; both files are read when it starts."""

    certificate: LocalPath  # PEM: its own, then the intermediate ones up to an authority that the clients trust
    key: LocalPath  # PEM, the certificate's key, without a pass phrase


class KioskConfig(_Tree):
    """The touch page and look-ups over HTTP."""

    camera: Name  # people hold items in front of it; its framing must be whole_frame
    host: str = "127.0.0.1"  # any other address needs a token
    port: Annotated[int, Field(ge=0, le=65535)] = 8090  # 0: any free port; the log names it
    token: Annotated[str, Field(min_length=8)] | None = Field(default=None, repr=False)  # required from every client
    tls: TlsConfig | None = None  # None: plain http; anybody on the network path can read pictures and the token
    looks: Annotated[int, Field(ge=1, le=8)] = 4  # pictures to take of an item that is taught
    max_taught: Annotated[int, Field(ge=1, le=1000)] = 200  # items; a start embeds every picture of each six times
    upload_url: str | None = Field(default=None, repr=False)  # http(s); taught items are PUT to <upload_url>/<id>.zip
    upload_token: str | None = Field(default=None, repr=False)  # sent as Authorization: Bearer

    @field_validator("upload_url")
    @classmethod
    def _is_http(cls, url: str | None) -> str | None:
        if url is not None and not re.match(r"https?://[^/]", url):
            raise ValueError("must be http:// or https:// and a host")
        return url

    @model_validator(mode="after")
    def _network_access_needs_a_token(self) -> KioskConfig:
        if self.token is None and not is_loopback(self.host):
            raise ValueError(f"host {self.host!r} is not a loopback address; set a token")
        return self


def is_loopback(host: str) -> bool:
    """Return whether only this machine can reach a host."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


class DeviceConfig(_Tree):
    """The whole configuration of one device."""

    site: Name = "site"
    device: Name = "device"
    state_dir: LocalPath = Field(default=Path("/var/lib/finesight"), validate_default=True)
    cameras: dict[Name, CameraConfig] = {}
    mqtt: MqttConfig | None = None  # None: events stay in the outbox; `edge demo` starts its own broker
    engine: EngineConfig = EngineConfig()
    recognition: RecognitionConfig = RecognitionConfig()
    gallery: GalleryConfig = GalleryConfig()
    outbox: OutboxConfig = OutboxConfig()
    health: HealthConfig | None = None  # None: no server
    kiosk: KioskConfig | None = None  # None: no server

    @field_validator("cameras")
    @classmethod
    def _has_an_enabled_camera(cls, cameras: dict[str, CameraConfig]) -> dict[str, CameraConfig]:
        if not any(camera.enabled for camera in cameras.values()):
            raise ValueError("no camera is enabled; enable at least one")
        if "cmd" in cameras:  # its topics would be those of commands
            raise ValueError("a camera cannot be named cmd, which names the topics of commands; choose another name")
        return cameras

    @field_validator("kiosk")
    @classmethod
    def _kiosk_has_a_camera(cls, kiosk: KioskConfig | None, info: ValidationInfo) -> KioskConfig | None:
        cameras: dict[str, CameraConfig] = info.data.get("cameras", {})
        if kiosk is not None and cameras:
            usable = [name for name, camera in cameras.items() if camera.enabled and camera.framing == "whole_frame"]
            if kiosk.camera not in usable:
                fix = f"choose one of {usable}" if usable else "set framing: whole_frame and enable it"
                raise ValueError(f"camera {kiosk.camera!r} is no enabled camera with framing: whole_frame; {fix}")
        return kiosk
