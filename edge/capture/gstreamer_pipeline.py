"""The GStreamer launch line of a source, from the elements a device has."""

from __future__ import annotations

from edge.config.camera_url import CaptureOptions, Codec, Source
from edge.errors import CaptureError

# Best first. Of these only what the registry lists is used: VA, NVCODEC and V4L2 register when the device has the unit.
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
CONVERTERS = ("nvvidconv", "nvvideoconvert")
KNOWN_ELEMENTS = frozenset(
    name
    for names in (
        *HARDWARE.values(),
        *SOFTWARE.values(),
        CAMERA_ELEMENTS,
        CONVERTERS,
        ("rtspsrc", "v4l2src", "appsink"),
    )
    for name in names
)
_RTP = {
    "h264": "rtph264depay ! h264parse",
    "h265": "rtph265depay ! h265parse",
    "mjpeg": "rtpjpegdepay",
}


def hardware_present(present: frozenset[str]) -> tuple[str, ...]:
    """The hardware decoders a device has, best first."""
    return tuple(dict.fromkeys(name for names in HARDWARE.values() for name in names if name in present))


def choose_decoder(codec: Codec, present: frozenset[str]) -> str:
    """The element that decodes a codec: hardware first; `decodebin` where the codec is unknown or has none."""
    if codec == "auto":
        return "decodebin"
    return next((name for name in HARDWARE[codec] + SOFTWARE[codec] if name in present), "decodebin")


def describe_pipeline(source: Source, present: frozenset[str], options: CaptureOptions) -> str:
    """The launch line of a source, without its address: the door sets that as a property of the element `source`.

    Args:
        source: what is read.
        present: names of the elements this device has.
        options: transport, latency, codec.

    Raises:
        CaptureError: the device lacks the element that reads this kind of source.
    """
    if source.kind == "gstreamer":
        return source.location
    decoder = choose_decoder(options.codec, present)
    parts = [*_head(source, present, options, decoder)]
    if source.kind != "csi":
        parts.append(decoder)
    parts += _to_rgb(present)
    # A camera's older pictures are stale, a file's are not: only the camera's sink drops. sync=false: the policy paces.
    drop = "false" if source.recorded else "true"
    parts.append(f"appsink name=sink max-buffers=1 drop={drop} sync=false")
    return " ! ".join(parts)


def _head(source: Source, present: frozenset[str], options: CaptureOptions, decoder: str) -> list[str]:
    if source.kind == "rtsp":
        first = (
            f"rtspsrc name=source protocols={options.transport} latency={options.latency_ms} "
            f"tcp-timeout={int(options.open_timeout_s * 1e6)} add-reference-timestamp-meta=true"
        )
        # Without the filter a camera's audio may be linked first.
        depay = [] if decoder == "decodebin" else [_RTP[options.codec]]
        return [first, "application/x-rtp,media=video", *depay]
    if source.kind == "file":
        return ["filesrc name=source", *([] if decoder == "decodebin" else ["parsebin"])]
    if source.kind == "v4l2":
        wanted = _wanted(source)
        return ["v4l2src name=source", *([f'"video/x-raw{wanted};image/jpeg{wanted}"'] if wanted else [])]
    if source.kind == "csi":
        return _csi(source, present)
    raise CaptureError(f"{source}: GStreamer reads no {source.kind} source")


def _csi(source: Source, present: frozenset[str]) -> list[str]:
    wanted = _wanted(source)
    if "nvarguscamerasrc" in present:
        return ["nvarguscamerasrc name=source", f'"video/x-raw(memory:NVMM){wanted}"']
    if "libcamerasrc" in present:
        return ["libcamerasrc name=source", f'"video/x-raw{wanted}"']
    raise CaptureError(f"{source}: found none of the elements {', '.join(CAMERA_ELEMENTS)}, expected one for CSI")


def _wanted(source: Source) -> str:
    text = "".join(f",{key}={value}" for key, value in (("width", source.width), ("height", source.height)) if value)
    return text + (f",framerate={round(source.fps * 1000)}/1000" if source.fps else "")


def _to_rgb(present: frozenset[str]) -> list[str]:
    # NVIDIA's converters take pictures out of device memory, but none of them writes 24-bit RGB.
    out_of_device = next(([name, "video/x-raw,format=RGBA"] for name in CONVERTERS if name in present), [])
    return [*out_of_device, "videoconvert", "video/x-raw,format=RGB"]
