"""The typed tree of a device's configuration.

Each field has its default and its unit here; the file states only differences. An unknown key is an error. While a
file is read, the validation context is the folder that relative paths are relative to.
"""

# no `from __future__ import annotations`: pydantic would compile and evaluate each field's type again at every start

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


def _plain_host(host: str) -> str:
    if re.search(r"[@/?#\s]", host) or (":" in host and not _is_ip_address(host)):
        raise ValueError("give a name or an address alone; port, user and password have keys of their own")
    return host


def _is_ip_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def _http_url(url: str) -> str:
    if not re.match(r"https?://[^/]", url):
        raise ValueError("must be http:// or https:// and a host")
    return url


Host = Annotated[str, AfterValidator(_plain_host)]
HttpUrl = Annotated[str, AfterValidator(_http_url)]
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]{0,63}$")]
LocalPath = Annotated[Path, AfterValidator(_absolute_path)]
HostName = Annotated[str, Field(pattern=r"^[A-Za-z0-9]([A-Za-z0-9._-]{0,252}[A-Za-z0-9])?$")]
Share = Annotated[float, Field(ge=0, le=1)]  # of the width or height of the picture
Point = tuple[Share, Share]  # x, y


class _Tree(BaseModel):
    # defer_build: its validator is built once, inside that of the tree that holds it; on its own when it is used alone.
    # So the defaults below are made by model_construct(), which needs no validator and checks nothing
    model_config = ConfigDict(frozen=True, extra="forbid", defer_build=True)


class ViewConfig(_Tree):
    """When a camera counts as frozen or obstructed. Its pictures are then not recognised, and its state says why."""

    # Seconds without anything new until a camera is frozen. Choose more than its longest key frame interval: an encoder
    # may send a still scene as the same picture until the next key frame. None: never frozen
    frozen_after_s: Annotated[float, Field(ge=5, le=3600)] | None = 60.0
    # Seconds covered, black or blurred until a camera is obstructed. Such pictures are skipped from the first one on.
    # None: never obstructed
    obstructed_after_s: Annotated[float, Field(ge=0.5, le=600)] | None = 3.0
    # Areas to ignore, such as a burnt-in clock: x0 y0 x1 y1 as fractions of the picture
    mask: tuple[tuple[Share, Share, Share, Share], ...] = ()

    @field_validator("mask")
    @classmethod
    def _mask_is_ordered(cls, mask: tuple[tuple[float, float, float, float], ...]) -> Any:
        for x0, y0, x1, y1 in mask:
            if x0 >= x1 or y0 >= y1:
                raise ValueError(f"{[x0, y0, x1, y1]} is not x0 y0 x1 y1 with x0 < x1 and y0 < y1")
        return mask


class ZoneConfig(_Tree):
    """A part of the picture. An object is in it if the middle of the lower edge of its box is in it."""

    # 3 to 64 corners: x and y as fractions of the picture
    polygon: Annotated[tuple[Point, ...], Field(min_length=3, max_length=64)]
    kind: Literal["include", "exclude"] = "include"  # include: only objects in such a zone are recognised
    dwell_s: Annotated[float, Field(ge=0)] = 0.0  # seconds that an object must stay before events name the zone


class LineConfig(_Tree):
    """A line whose crossings are counted; left and right as seen from `from` looking towards `to`."""

    start: Point = Field(alias="from")  # x and y as fractions of the picture
    end: Point = Field(alias="to")  # x and y as fractions of the picture

    @model_validator(mode="after")
    def _has_a_direction(self) -> "LineConfig":
        if self.start == self.end:
            raise ValueError(f"the line starts and ends at {list(self.start)}; give two points")
        return self


class MotionConfig(_Tree):
    """The detector runs only while something moves, or while an object in view is undecided."""

    sweep_s: Annotated[float, Field(gt=0, le=3600)] = 5.0  # seconds: the detector runs at least this often


class CameraConfig(_Tree):
    """One camera, file or folder of pictures."""

    # Address: rtsp://, v4l2://, csi://, file://, folder:// or `gst:<pipeline>`; may contain a password. Cameras:
    # `v4l2://0?width=1280&height=720&fps=30`, `csi://0` likewise. `file://x.mp4?loop=1` starts again at its end.
    # `folder://pictures/*.jpg?fps=2&loop=1` shows so many pictures a second, 1 if fps is not given
    source: Annotated[str, AfterValidator(_absolute_source)] = Field(repr=False)
    # Library that reads it; auto chooses by address and device
    backend: Literal["auto", "opencv", "gstreamer"] = "auto"
    enabled: bool = True  # false: the camera starts switched off
    framing: Literal["detect", "whole_frame"] = "detect"  # whole_frame: one object fills the picture (kiosk)
    # every_frame: read a file or folder as fast as it is recognised, and drop nothing
    pacing: Literal["real_time", "every_frame"] = "real_time"
    rtsp_transport: Literal["tcp", "udp"] = "tcp"  # udp loses packets where tcp waits for them; needs GStreamer
    # Milliseconds of the jitter buffer of an RTSP camera; GStreamer only
    latency_ms: Annotated[int, Field(ge=0, le=5000)] = 100
    # Pixels of the longer side, at most: larger pictures are scaled down right after they are decoded, for everything
    # but the recording. Objects must stay as large as the embedder's input. None: as the camera sends them
    max_px: Annotated[int, Field(ge=64, le=16384)] | None = None
    open_timeout_s: Annotated[float, Field(gt=0, le=120)] = 10.0  # seconds after which opening it fails
    stall_timeout_s: Annotated[float, Field(gt=0, le=600)] = 5.0  # seconds without a frame until it is stalled
    # Mebibytes of the latest encoded video to keep for `edge replay`; GStreamer only
    record_mib: Annotated[int, Field(ge=0)] = 0
    # Detection of frozen and obstructed cameras. None: the defaults for a camera; off for a file or folder, whose
    # pictures have no sensor noise
    view: ViewConfig | None = None
    zones: Annotated[dict[Name, ZoneConfig], Field(max_length=16)] = {}  # at most 16; needs framing: detect
    lines: Annotated[dict[Name, LineConfig], Field(max_length=16)] = {}  # at most 16; needs framing: detect
    motion: MotionConfig | None = None  # None: the detector runs on every picture

    @model_validator(mode="after")
    def _zones_lines_and_motion_need_detections(self) -> "CameraConfig":
        found = [name for name in ("zones", "lines", "motion") if getattr(self, name)]
        if found and self.framing == "whole_frame":
            raise ValueError(f"{' and '.join(found)} cannot be used with framing: whole_frame; set framing: detect")
        return self


class HomeAssistantConfig(_Tree):
    """MQTT discovery of Home Assistant."""

    prefix: Name = "homeassistant"  # first level of the discovery topics, as set in Home Assistant's MQTT integration
    # Labels of items that get a sensor of their own for each camera: how many of them are in view
    items: Annotated[tuple[str, ...], Field(max_length=50)] = ()


class MqttConfig(_Tree):
    """The broker that receives the events."""

    host: Host = "localhost"  # name or address of the broker
    port: Annotated[int, Field(ge=1, le=65535)] = 1883  # brokers usually listen for TLS on 8883
    username: str | None = None  # None: connect without credentials
    password: str | None = Field(default=None, repr=False)  # take it from the environment: ${NAME}
    client_id: str | None = None  # None: site, device and a random part
    root: Name = "finesight"  # first level of every topic
    version: Literal["3.1.1", "5"] = "3.1.1"  # of the MQTT protocol
    keepalive_s: Annotated[int, Field(ge=5, le=3600)] = 30  # seconds of silence after which the device pings the broker
    tls: bool = False  # encrypt the connection and check the broker's certificate
    tls_ca: LocalPath | None = None  # PEM file of trusted authorities; None: those of the system
    tls_cert: LocalPath | None = None  # PEM client certificate, for a broker that asks for one
    tls_key: LocalPath | None = None  # PEM key of tls_cert, without a pass phrase; None: tls_cert contains it
    commands: bool = True  # accept `cmd/<verb>` and `<camera>/enabled/set`; the broker decides who may send
    home_assistant: HomeAssistantConfig | None = None  # None: no discovery message
    frigate_mirror: bool = False  # also publish to <frigate_prefix>/events, for automations written for Frigate
    frigate_prefix: Name = "frigate"  # first level of the mirror's topic; choose another beside a Frigate

    @model_validator(mode="after")
    def _tls_files_are_used(self) -> "MqttConfig":
        files = [name for name in ("tls_ca", "tls_cert", "tls_key") if getattr(self, name) is not None]
        if files and not self.tls:  # else the device would send its password unencrypted
            raise ValueError(f"{' and '.join(files)} without tls: true; set tls: true")
        if self.tls_key is not None and self.tls_cert is None:
            raise ValueError("tls_key without tls_cert; set both")
        return self


class TensorRtConfig(_Tree):
    """How TensorRT builds and runs engines. A change of one of the first three keys builds them again."""

    # 0 to 5: how long TensorRT searches for fast kernels. Lower builds faster, higher may run faster
    optimisation_level: Annotated[int, Field(ge=0, le=5)] = 3
    # MiB of GPU memory that one layer may use as scratch; less leaves out the kernels that need more. None: no limit
    workspace_mib: Annotated[int, Field(ge=1, le=65536)] | None = None
    # DLA core to run on, 0 or 1; layers that it lacks run on the GPU. An error where TensorRT finds no such core
    dla_core: Annotated[int, Field(ge=0, le=3)] | None = None
    timing_cache: bool = True  # keep measured kernel times beside the engines, so that the next build is faster
    cuda_graphs: bool = True  # launch a model as one CUDA graph; where that fails, it is launched kernel by kernel
    # MiB of disk for the engines that `tensorrt` built; above it, those that were not loaded for the longest time are
    # deleted, but none of the active bundle
    cache_mib: Annotated[int, Field(ge=64, le=1_048_576)] = 2048


class EngineConfig(_Tree):
    """The library that runs the models."""

    # auto: for each model the fastest engine that passed its probes here, and ONNX Runtime on the CPU until then.
    # Others: onnxruntime, onnxruntime-cuda, onnxruntime-tensorrt, openvino, tensorrt, tensorrt-rtx, or a plug-in. One
    # that is not installed is an error
    backend: Annotated[str, Field(pattern=r"^[a-z][a-z0-9-]{1,39}$")] = "auto"
    threads: Annotated[int, Field(ge=1, le=64)] = 1  # CPU threads inside one model
    # shipped: the form chosen with the engine; until then, the one that was faster where the bundle was packed
    precision: Literal["shipped", "int8", "fp32"] = "shipped"
    # MiB of memory for loaded models. If a bundle needs more, each embedder is loaded when its category is first seen,
    # and the one used longest ago is closed; the other models stay loaded. A new bundle is loaded beside the active one
    # and may use as much again. None: a quarter of the memory of the machine, or of its service or container
    memory_mib: Annotated[int, Field(ge=1)] | None = None
    # used by tensorrt; onnxruntime-tensorrt and tensorrt-rtx use its level, workspace and timing cache where they can
    tensorrt: TensorRtConfig = TensorRtConfig.model_construct()


class SeekConfig(_Tree):
    """The bundle's finder searches camera frames for taught items that the detector misses."""

    # seconds between two searches of a camera; must be less than track_gap_s, or tracks end in between
    every_s: Annotated[float, Field(gt=0)] = 0.4
    items: Annotated[int, Field(ge=1, le=50)] = 3  # taught items in one search; the items take turns
    looks: Annotated[int, Field(ge=1, le=8)] = 2  # pictures of each item to search with


class RecognitionConfig(_Tree):
    """How often to embed a tracked object. The bundle defines what counts as a match."""

    min_object_px: Annotated[int, Field(ge=4)] = 24  # pixels of the box's shorter side; smaller objects are too_small
    min_looks: Annotated[int, Field(ge=1)] = 3  # embeddings of an unclear object before it is reported as unknown
    max_looks: Annotated[int, Field(ge=1)] = 12  # embeddings of an unclear object; then only rechecks
    # Seconds between the first embeddings of an object; later ones are rarer
    look_interval_s: Annotated[float, Field(ge=0)] = 0.1
    recheck_s: Annotated[float, Field(gt=0)] = 3.0  # seconds until an object in view is embedded again, at most
    # Embeddings per second, over all cameras; None: no limit. With a limit, unrecognised objects go first, and a
    # blurred or small view of an object waits for a better one and counts less
    looks_per_s: Annotated[float, Field(gt=0)] | None = None
    track_gap_s: Annotated[float, Field(gt=0)] = 1.0  # seconds without a detection after which an object has left
    # Departed objects to keep and to search again in the next gallery; in memory, without pictures. 0: none
    recall_tracks: Annotated[int, Field(ge=0, le=100_000)] = 1000
    recall_age_s: Annotated[float, Field(gt=0)] = 24 * 3600.0  # seconds to keep a departed object
    # Search for taught items that the detector misses. Needs a bundle with a finder; switching it on needs a restart.
    # None: no search
    seek: SeekConfig | None = None


class GalleryConfig(_Tree):
    """How a gallery is searched, how sure a match must be, and when a gallery is reported as stale.

    A stale gallery still answers, but is confidently wrong about items it does not know.
    """

    # How to search a category of 16,384 vectors or more. "auto": by lists of similar vectors, made in seconds and kept
    # in the state folder. "exact": every vector. "hnsw": by a graph, made in a minute for 100,000 vectors, with more
    # memory
    index: Literal["auto", "exact", "hnsw"] = "auto"
    # Share of all names that may be wrong, such as 0.01. A bundle without a threshold for it or for less is refused:
    # its held-out pictures must have shown it (edge-quantize pack --risk). None: the bundle's own threshold
    risk: Annotated[float, Field(gt=0, lt=1)] | None = None
    # The same for the share of unknown objects that may be named. Set one of both
    false_accept: Annotated[float, Field(gt=0, lt=1)] | None = None
    stale_after_days: Annotated[float, Field(gt=0)] | None = 30.0  # days since it was created; None: never
    # Largest allowed gap between two cumulative distributions: the probabilities of the decisions on the latest 200
    # objects, and on the first 200 with this gallery. Chance alone exceeds 0.2 once in 1,500 times. None: no limit
    drift: Annotated[float, Field(gt=0, le=1)] | None = 0.3

    @model_validator(mode="after")
    def _has_one_operating_point(self) -> "GalleryConfig":
        if self.risk is not None and self.false_accept is not None:
            raise ValueError("risk and false_accept choose one threshold in two ways; set one of them")
        return self


class OutboxConfig(_Tree):
    """The queue of events that wait for the broker."""

    max_bytes: Annotated[int, Field(ge=65536)] = 64 * 1024 * 1024  # on disk; when it is full, updates are dropped first
    max_age_s: Annotated[float, Field(gt=0)] = 7 * 24 * 3600.0  # seconds; older events are dropped


class HealthConfig(_Tree):
    """The HTTP server for health and metrics, and for `snapshots` and `live`."""

    # Address to listen on. /healthz, /readyz, /status and /metrics need no login: anybody who reaches them can read
    # camera names
    host: Host = "127.0.0.1"
    port: Annotated[int, Field(ge=0, le=65535)] = 9464  # 0: any free port, which the log names
    # Names that clients reach the device by, beside its addresses and the name of the machine. Requests for another
    # name are refused
    host_names: tuple[HostName, ...] = ()
    # Secret that clients must send for pictures, at least 8 characters; needed if host is not loopback
    token: Annotated[str, Field(min_length=8)] | None = Field(default=None, repr=False)


class SnapshotConfig(_Tree):
    """Pictures of recognised objects: by MQTT, retained, and with `health:` at `/snapshot/<camera>.jpg`."""

    margin: Annotated[float, Field(ge=0, le=2)] = 0.15  # added on each side, as a fraction of the object's box
    max_px: Annotated[int, Field(ge=64, le=2048)] = 512  # of the longer side; a larger crop is scaled down


class LiveConfig(_Tree):
    """The live view with boxes and names, on the health server: the page /live, and MJPEG at `/live/<camera>`."""

    max_fps: Annotated[float, Field(gt=0, le=30)] = 5.0  # pictures per second of each camera that somebody watches
    max_px: Annotated[int, Field(ge=160, le=3840)] = 960  # width of the picture
    max_clients: Annotated[int, Field(ge=1, le=32)] = 4  # at once; more are refused


class UnknownsConfig(_Tree):
    """Pictures of objects that the device could not name. They leave the device: a server collects them for review."""

    # Each picture is PUT to `<upload_url>/<name>.zip`, with what the device knows of the object
    upload_url: HttpUrl = Field(repr=False)
    upload_token: str | None = Field(default=None, repr=False)  # sent as `Authorization: Bearer <upload_token>`
    cameras: tuple[Name, ...] = ()  # whose objects to send; none: those of all cameras, except the kiosk's
    reasons: Annotated[
        tuple[Literal["unknown_item", "low_margin", "unknown_category", "gallery_empty"], ...], Field(min_length=1)
    ] = ("unknown_item", "low_margin")  # why the object had no name, see the events
    min_px: Annotated[int, Field(ge=16, le=4096)] = 64  # of the shorter side of its box; smaller ones are not sent
    max_px: Annotated[int, Field(ge=64, le=2048)] = 640  # of the longer side of its picture, which is scaled down
    per_hour: Annotated[int, Field(ge=1, le=10_000)] = 20  # pictures, over all cameras; further ones are dropped
    per_day: Annotated[int, Field(ge=1, le=100_000)] = 200  # pictures, over all cameras; further ones are dropped
    # Seconds in which an object of a camera that looks like the one before it is not sent again; 0: all are sent
    fold_s: Annotated[float, Field(ge=0, le=86_400)] = 600.0
    # Mebibytes of pictures that wait for the server; above it, the oldest are deleted
    max_mib: Annotated[int, Field(ge=1, le=4096)] = 64


class TlsConfig(_Tree):
    """The certificate of a server; both files are read when it starts."""

    certificate: LocalPath  # PEM: the server's, then the intermediate ones up to an authority that the clients trust
    key: LocalPath  # PEM: the private key of the certificate, without a pass phrase


class KioskConfig(_Tree):
    """The touch page, and the HTTP API that recognises pictures."""

    camera: Name  # people hold items in front of it; its framing must be whole_frame
    host: Host = "127.0.0.1"  # address to listen on; any but loopback needs a token
    port: Annotated[int, Field(ge=0, le=65535)] = 8090  # 0: any free port, which the log names
    # Names that clients reach the kiosk by, beside its addresses and the name of the machine. Requests for another
    # name are refused
    host_names: tuple[HostName, ...] = ()
    # Secret that every client must send, at least 8 characters
    token: Annotated[str, Field(min_length=8)] | None = Field(default=None, repr=False)
    tls: TlsConfig | None = None  # None: plain http; anybody on the network path can read pictures and the token
    looks: Annotated[int, Field(ge=1, le=8)] = 4  # pictures to take of an item that is taught
    # Most taught items; a start embeds each of their pictures six times
    max_taught: Annotated[int, Field(ge=1, le=1000)] = 200
    upload_url: HttpUrl | None = Field(default=None, repr=False)  # taught items are PUT to `<upload_url>/<id>.zip`
    upload_token: str | None = Field(default=None, repr=False)  # sent as `Authorization: Bearer <upload_token>`

    @model_validator(mode="after")
    def _network_access_needs_a_token(self) -> "KioskConfig":
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

    model_config = ConfigDict(defer_build=False)

    site: Name = "site"  # second level of every topic; name of the place
    device: Name = "device"  # third level of every topic; unique at the site
    # Folder of bundle slots, galleries, taught items and the events that wait for the broker
    state_dir: LocalPath = Field(default=Path("/var/lib/finesight"), validate_default=True)
    cameras: dict[Name, CameraConfig] = {}  # by name; at least one must be enabled
    mqtt: MqttConfig | None = None  # None: events stay in the outbox; `edge demo` starts its own broker
    engine: EngineConfig = EngineConfig.model_construct()  # the library that runs the models
    recognition: RecognitionConfig = RecognitionConfig.model_construct()  # how often to embed tracked objects
    gallery: GalleryConfig = GalleryConfig.model_construct()  # how it is searched, when it is stale
    outbox: OutboxConfig = OutboxConfig.model_construct()  # bounds of the queue of events
    health: HealthConfig | None = None  # None: no health server
    snapshots: SnapshotConfig | None = None  # None: no picture of an object is published
    live: LiveConfig | None = None  # None: no live view
    kiosk: KioskConfig | None = None  # None: no kiosk
    unknowns: UnknownsConfig | None = None  # None: no picture of an unknown object is kept or sent

    @field_validator("cameras")
    @classmethod
    def _has_an_enabled_camera(cls, cameras: dict[str, CameraConfig]) -> dict[str, CameraConfig]:
        if not any(camera.enabled for camera in cameras.values()):
            raise ValueError("no camera is enabled; enable at least one")
        if "cmd" in cameras:  # its topics would be those of commands
            raise ValueError("a camera cannot be named cmd, which names the topics of commands; choose another name")
        return cameras

    @field_validator("snapshots", "live")
    @classmethod
    def _pictures_need_a_token(cls, pictures: BaseModel | None, info: ValidationInfo) -> Any:
        health: HealthConfig | None = info.data.get("health")
        if pictures is None:
            return None
        if health is None and info.field_name == "live":
            raise ValueError("the live view is on the health server; add `health: {}`")
        if health is not None and health.token is None and not is_loopback(health.host):
            raise ValueError(f"health.host {health.host!r} is not a loopback address; set health.token")
        return pictures

    @field_validator("unknowns")
    @classmethod
    def _unknowns_name_cameras(cls, unknowns: UnknownsConfig | None, info: ValidationInfo) -> UnknownsConfig | None:
        cameras: dict[str, CameraConfig] = info.data.get("cameras", {})
        missing = [name for name in unknowns.cameras if name not in cameras] if unknowns is not None else []
        if missing and cameras:
            raise ValueError(f"cameras: there is no camera {missing[0]!r}; choose from {sorted(cameras)}")
        return unknowns

    @field_validator("kiosk")
    @classmethod
    def _kiosk_has_a_camera(cls, kiosk: KioskConfig | None, info: ValidationInfo) -> KioskConfig | None:
        cameras: dict[str, CameraConfig] = info.data.get("cameras", {})
        if kiosk is not None and cameras:
            usable = [name for name, camera in cameras.items() if camera.enabled and camera.framing == "whole_frame"]
            if kiosk.camera not in usable:
                fix = f"choose one of {usable}" if usable else "set framing: whole_frame and enable it"
                raise ValueError(f"camera {kiosk.camera!r} is not an enabled camera with framing: whole_frame; {fix}")
        return kiosk
