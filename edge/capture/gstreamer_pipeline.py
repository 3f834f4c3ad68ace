"""Write the GStreamer launch line of a source, from the elements the device has."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from edge.capture.frame_source import CaptureOptions, Codec
from edge.config.camera_url import Source
from edge.errors import CaptureError

# Best first. Only elements in the registry are used: VA, NVCODEC and V4L2 elements register when the hardware exists.
HARDWARE: dict[str, tuple[str, ...]] = {
    "h264": ("nvv4l2decoder", "nvh264dec", "vah264dec", "qsvh264dec", "v4l2slh264dec", "v4l2h264dec"),
    "h265": ("nvv4l2decoder", "nvh265dec", "vah265dec", "qsvh265dec", "v4l2slh265dec", "v4l2h265dec"),
    "mjpeg": ("nvjpegdec", "vajpegdec", "qsvjpegdec", "v4l2jpegdec"),
}
SOFTWARE: dict[str, tuple[str, ...]] = {
    "h264": ("avdec_h264", "openh264dec"),
    "h265": ("avdec_h265", "libde265dec"),
    "mjpeg": ("jpegdec", "avdec_mjpeg"),
}
CAMERA_ELEMENTS = ("nvarguscamerasrc", "libcamerasrc")
DEINTERLACER = "deinterlace"
SCALER = "videoscale"
CONVERTERS = ("nvvidconv", "nvvideoconvert")  # NVIDIA's: they also copy pictures out of device memory
PACKED_FORMATS = ("RGB", "RGBA", "RGBx", "BGRA", "BGRx")  # that capture takes from a converter, best first
NO_FORMATS: Mapping[str, frozenset[str]] = MappingProxyType({})
KNOWN_ELEMENTS = frozenset(
    name
    for names in (
        *HARDWARE.values(),
        *SOFTWARE.values(),
        CAMERA_ELEMENTS,
        CONVERTERS,
        ("rtspsrc", "v4l2src", "appsink", "tsdemux", "h264parse", DEINTERLACER, SCALER),
    )
    for name in names
)
_RTP = {
    "h264": "rtph264depay ! h264parse",
    "h265": "rtph265depay ! h265parse",
    "mjpeg": "rtpjpegdepay",
}


def hardware_present(present: frozenset[str]) -> tuple[str, ...]:
    """Return the hardware decoders a device has, best first."""
    return tuple(dict.fromkeys(name for names in HARDWARE.values() for name in names if name in present))


def choose_decoder(codec: Codec, present: frozenset[str]) -> str:
    """Return the element that decodes a codec, hardware first; `decodebin` for an unknown codec or when none exists."""
    if codec == "auto":
        return "decodebin"
    return next((name for name in HARDWARE[codec] + SOFTWARE[codec] if name in present), "decodebin")


def describe_pipeline(
    source: Source,
    present: frozenset[str],
    options: CaptureOptions,
    formats: Mapping[str, frozenset[str]] = NO_FORMATS,
) -> str:
    """Return the launch line of a source, without its address.

    GStreamerSource sets the address, and what not every version of an element knows, as properties of the elements.

    Args:
        source: to read.
        present: names of the elements the device has.
        options: transport, latency, codec.
        formats: pixel formats that a converter writes to ordinary memory, by its name.

    Raises:
        CaptureError: the device lacks the element that reads this kind of source.
    """
    if source.kind == "gstreamer":
        return source.location
    decoder = choose_decoder(options.codec, present)
    parts = [*_head(source, present, options, decoder)]
    if source.kind != "csi":
        parts.append(decoder)
    parts += _to_packed(present, formats, options.max_px)
    # Older pictures of a camera are stale, those of a file are not: only the camera's sink drops pictures.
    # sync=false: Camera does the pacing.
    drop = "false" if source.recorded else "true"
    parts.append(f"appsink name=sink max-buffers=1 drop={drop} sync=false")
    return " ! ".join(parts)


def _head(source: Source, present: frozenset[str], options: CaptureOptions, decoder: str) -> list[str]:
    if source.kind == "rtsp":
        first = f"rtspsrc name=source protocols={options.transport} latency={options.latency_ms}"
        if options.transport == "tcp":
            # TCP delivers late packets in bursts, and the other modes would take their arrival for their time.
            first += " buffer-mode=none"
        # Without the filter, GStreamer may link the camera's audio first.
        depay = [] if decoder == "decodebin" else [_RTP[options.codec]]
        return [first, "application/x-rtp,media=video", *depay]
    if source.kind == "file":
        return ["filesrc name=source", *([] if decoder == "decodebin" else ["parsebin"])]
    if source.kind == "v4l2":
        caps = _requested_caps(source)
        return ["v4l2src name=source", *([f'"video/x-raw{caps};image/jpeg{caps}"'] if caps else [])]
    if source.kind == "csi":
        return _csi(source, present)
    raise CaptureError(f"{source}: GStreamer cannot read {source.kind} sources")


def _csi(source: Source, present: frozenset[str]) -> list[str]:
    caps = _requested_caps(source)
    if "nvarguscamerasrc" in present:
        if not source.location.isdecimal():
            raise CaptureError(f"{source}: NVIDIA's cameras have numbers, not names; give csi://0 for the first one")
        return ["nvarguscamerasrc name=source", f'"video/x-raw(memory:NVMM){caps}"']
    if "libcamerasrc" in present:
        if source.location.isdecimal() and int(source.location) > 0:
            raise CaptureError(f"{source}: libcamera's cameras have names; give csi:// and a name that `cam -l` prints")
        return ["libcamerasrc name=source", f'"video/x-raw{caps}"']
    raise CaptureError(f"{source}: a CSI camera needs one of the GStreamer elements {', '.join(CAMERA_ELEMENTS)}")


def _requested_caps(source: Source) -> str:
    text = "".join(f",{key}={value}" for key, value in (("width", source.width), ("height", source.height)) if value)
    return text + (f",framerate={round(source.fps * 1000)}/1000" if source.fps else "")


def _to_packed(present: frozenset[str], formats: Mapping[str, frozenset[str]], max_px: int | None) -> list[str]:
    converter = next((name for name in CONVERTERS if name in present), None)
    if converter is None:
        return software_to_packed(present, max_px)
    # All of NVIDIA's converters write RGBA, few of them 24-bit RGB; the fourth byte is dropped with the last copy.
    pixel_format = next((name for name in PACKED_FORMATS if name in formats.get(converter, ())), "RGBA")
    return [converter, f"video/x-raw,format={pixel_format}{_at_most(max_px)}"]


def software_to_packed(present: frozenset[str], max_px: int | None = None) -> list[str]:
    """Return the elements that turn decoded pictures into progressive RGB in ordinary memory.

    Args:
        present: names of the elements the device has.
        max_px: the longer side of the pictures, at most; None: as they come.
    """
    # It passes progressive pictures through. One picture per frame: the two fields of one are 20 ms apart.
    deinterlacer = [f"{DEINTERLACER} fields=top"] if DEINTERLACER in present else []
    scaler = []
    if max_px is not None and SCALER in present:
        # Before the conversion, which then has less to do. Given ranges and square pixels, it keeps a picture's shape.
        # bilinear2 averages what it leaves out; add-borders=false: a rounded size gets no black edge.
        square = f"video/x-raw{_at_most(max_px)},pixel-aspect-ratio=1/1"
        scaler = [f"{SCALER} method=bilinear2 add-borders=false", square]
    return [*deinterlacer, *scaler, "videoconvert", "video/x-raw,format=RGB"]


def _at_most(max_px: int | None) -> str:
    return f",width=[1,{max_px}],height=[1,{max_px}]" if max_px is not None else ""
