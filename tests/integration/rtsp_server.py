"""A camera on loopback: an RTSP server in a process of its own that plays a colour, a video or photos.

By hand: `python -m tests.integration.rtsp_server colour:e02010 --fps 15`; it prints its URL. What it plays:

* `colour:RRGGBB`: one colour, for ever, at `--size` and `--fps`.
* `file:PATH`: a video, encoded again, once, at its own pace.
* `encoded:PATH`: an MP4 file of H.264 as it is, once, at its own pace: serving it costs next to nothing.
* `photos:PATH`: the pictures of a folder, or those named line by line in a .txt file, each `--seconds` long, then the
  end of the stream. Photo i is shown from i * seconds of the stream's own time (`pts_s` of the frames) on.

Every client plays from the beginning. `--codec` says how a colour, video or photos are encoded, or that the codec of a
colour changes in mid-stream; `--login` that the server asks who is there.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

import numpy as np

from edge.capture.folder_source import list_pictures
from edge.imaging.image import read_image, resize

PATH = "/camera"
_H264 = (
    "x264enc tune=zerolatency speed-preset=superfast pass=quant quantizer={quantizer} key-int-max={gop}"
    # By the second, not by key frame (-1): that puts parameter sets between the slices of one picture, too, and FFmpeg
    # then gives out the picture with only the first of them decoded.
    " ! rtph264pay name=pay0 pt=96 config-interval=1"
)
_H265 = (
    "x265enc tune=zerolatency speed-preset=ultrafast key-int-max={gop} ! rtph265pay name=pay0 pt=96 config-interval=-1"
)
_ENCODED = {"h264": _H264, "h265": _H265, "mjpeg": "jpegenc ! rtpjpegpay name=pay0 pt=26"}
CHANGING = "h264-then-h265"  # after three seconds, under the session description of H.264


class RtspServer:
    """The server seen from a test or benchmark: start it, kill it, start it again on the same port."""

    def __init__(
        self,
        plays: str,
        *,
        fps: float = 15,
        size: tuple[int, int] = (320, 240),
        seconds: float = 1.0,
        quantizer: int = 20,
        codec: str = "h264",
        login: str | None = None,
        port: int = 0,
    ) -> None:
        self._arguments = [
            plays,
            *("--fps", str(fps), "--size", f"{size[0]}x{size[1]}", "--seconds", str(seconds)),
            *("--quantizer", str(quantizer), "--codec", codec),
            *(("--login", login) if login else ()),
        ]
        self._port = port
        self._process: subprocess.Popen[str] | None = None
        self.url = ""

    @property
    def port(self) -> int:
        """Where it listens, once started."""
        return self._port

    def start(self) -> str:
        """Start it; its URL, which stays the same after `kill`."""
        command = [sys.executable, "-m", "tests.integration.rtsp_server", *self._arguments, "--port", str(self._port)]
        root = Path(__file__).parents[2]
        # Its standard input is our life line: it ends when we do.
        self._process = subprocess.Popen(command, cwd=root, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.url = self._process.stdout.readline().strip()
        if not self.url:
            raise RuntimeError(f"{' '.join(command)}: ended with {self._process.wait()}")
        self._port = int(self.url.rpartition(":")[2].partition("/")[0])
        return self.url

    def kill(self) -> None:
        """End it without a word to its clients, as a power cut does."""
        self._process.kill()
        self._reap()

    def stop(self) -> None:
        """End it if it runs."""
        if self._process is not None:
            self._process.terminate()
            self._reap()

    def _reap(self) -> None:
        self._process.wait(60)
        self._process.stdin.close()
        self._process.stdout.close()
        self._process = None

    def __enter__(self):
        self.start()
        return self

    def __exit__(self, *_exception: object) -> None:
        self.stop()


def letterbox(image_rgb: np.ndarray, width: int, height: int) -> np.ndarray:
    """The picture as large as fits, in the middle of grey."""
    scale = min(width / image_rgb.shape[1], height / image_rgb.shape[0])
    fitted = resize(image_rgb, round(image_rgb.shape[1] * scale), round(image_rgb.shape[0] * scale), "area")
    left, top = (width - fitted.shape[1]) // 2, (height - fitted.shape[0]) // 2
    canvas = np.full((height, width, 3), 114, np.uint8)
    canvas[top : top + fitted.shape[0], left : left + fitted.shape[1]] = fitted
    return canvas


def launch_line(arguments: argparse.Namespace) -> str:
    """What gst-rtsp-server plays to a client."""
    kind, _, what = arguments.plays.partition(":")
    width, height = arguments.size
    rate = f"{round(arguments.fps * 1000)}/1000"
    # A key frame every half second: a decoder that joins or loses something is back soon.
    encoded = {
        codec: "videoconvert ! video/x-raw,format=I420 ! "
        + line.format(quantizer=arguments.quantizer, gop=max(1, round(arguments.fps / 2)))
        for codec, line in _ENCODED.items()
    }
    pay = encoded.get(arguments.codec, "")
    if kind == "colour":
        caps = f"video/x-raw,width={width},height={height},framerate={rate}"
        colour = 0xFF000000 | int(what, 16)
        camera = f"videotestsrc is-live=true pattern=solid-color foreground-color={colour}"
        if arguments.codec == CHANGING:
            first, then = (encoded[codec].replace("name=pay0", "") for codec in ("h264", "h265"))
            buffers = round(3 * arguments.fps)
            changing = f"{camera} num-buffers={buffers} ! {caps} ! {first} ! pay0. {camera} ! {caps} ! {then} ! pay0."
            return f"( concat name=pay0 {changing} )"
        return f"( {camera} ! {caps} ! {pay} )"
    if kind == "file":
        return f'( filesrc location="{Path(what).resolve()}" ! decodebin ! {pay} )'
    if kind == "encoded":
        pay = "rtph264pay name=pay0 pt=96 config-interval=-1"
        return f'( filesrc location="{Path(what).resolve()}" ! qtdemux ! h264parse ! {pay} )'
    if kind == "photos":
        caps = f"video/x-raw,format=RGB,width={width},height={height},framerate={rate}"
        return f'( appsrc name=photos format=time block=true max-bytes=0 max-buffers=2 caps="{caps}" ! {pay} )'
    raise SystemExit(f"{arguments.plays}: expected colour:, file:, encoded: or photos:")


class _Photos:
    """Feeds the photos to one client's appsrc, frame by frame, as it asks."""

    def __init__(self, paths: list[Path], arguments: argparse.Namespace) -> None:
        self._paths = paths
        self._size = arguments.size
        self._fps = arguments.fps
        self._frames_each = round(arguments.seconds * arguments.fps)
        self._next = 0
        self._shown: tuple[int, bytes] = (-1, b"")

    def on_need_data(self, appsrc: object, _length: int) -> None:
        from gi.repository import Gst

        photo = self._next // self._frames_each
        if photo >= len(self._paths):
            appsrc.emit("end-of-stream")
            return
        if self._shown[0] != photo:
            width, height = self._size
            canvas = letterbox(read_image(self._paths[photo]), width, height)
            padded = np.zeros((height, (3 * width + 3) // 4 * 4), np.uint8)  # GStreamer's rows are whole words
            padded[:, : 3 * width] = canvas.reshape(height, 3 * width)
            self._shown = (photo, padded.tobytes())
        buffer = Gst.Buffer.new_wrapped(self._shown[1])
        buffer.pts = buffer.dts = round(self._next * 1e9 / self._fps)
        buffer.duration = round(1e9 / self._fps)
        self._next += 1
        appsrc.emit("push-buffer", buffer)


def _ask_who_is_there(server: object, factory: object, method: str, user: str, password: str) -> None:
    from gi.repository import GstRtsp, GstRtspServer

    token = GstRtspServer.RTSPToken()
    token.set_string("media.factory.role", "viewer")
    auth = GstRtspServer.RTSPAuth()
    if method == "digest":
        auth.set_supported_methods(GstRtsp.RTSPAuthMethod.DIGEST)
        auth.add_digest(user, password, token)
    else:
        auth.add_basic(GstRtspServer.RTSPAuth.make_basic(user, password), token)
    permissions = GstRtspServer.RTSPPermissions()
    for what in ("media.factory.access", "media.factory.construct"):
        permissions.add_permission_for_role("viewer", what, True)
    factory.set_permissions(permissions)
    server.set_auth(auth)


def serve(arguments: argparse.Namespace) -> None:
    """Run the server until standard input ends."""
    import gi

    gi.require_version("Gst", "1.0")
    gi.require_version("GstRtspServer", "1.0")
    from gi.repository import GLib, Gst, GstRtspServer

    Gst.init(None)
    kind, _, what = arguments.plays.partition(":")
    paths: list[Path] = []
    if kind == "photos":
        listed = Path(what).read_text(encoding="utf-8").splitlines() if what.endswith(".txt") else None
        paths = list_pictures(what) if listed is None else [Path(line) for line in listed if line]
    server = GstRtspServer.RTSPServer()
    server.set_address("127.0.0.1")
    server.set_service(str(arguments.port))
    factory = GstRtspServer.RTSPMediaFactory()
    factory.set_launch(launch_line(arguments))
    feeders = []

    def on_configure(_factory: object, media: object) -> None:
        appsrc = media.get_element().get_by_name_recurse_up("photos")
        if appsrc is not None:
            feeders.append(_Photos(paths, arguments))  # held here: a signal holds no reference
            appsrc.connect("need-data", feeders[-1].on_need_data)

    factory.connect("media-configure", on_configure)
    if arguments.login:
        _ask_who_is_there(server, factory, *arguments.login.split(":"))
    server.get_mount_points().add_factory(PATH, factory)
    if server.attach(None) == 0:
        raise SystemExit(f"port {arguments.port}: cannot listen")
    loop = GLib.MainLoop()
    GLib.io_add_watch(sys.stdin.fileno(), GLib.PRIORITY_DEFAULT, GLib.IOCondition.HUP, lambda *_: loop.quit())
    print(f"rtsp://127.0.0.1:{server.get_bound_port()}{PATH}", flush=True)
    loop.run()


def main(argv: list[str] | None = None) -> int:
    """Parse the command line and serve."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("plays", help="colour:RRGGBB, file:PATH, encoded:PATH or photos:PATH")
    parser.add_argument("--port", type=int, default=0, help="0 takes a free one")
    parser.add_argument("--fps", type=float, default=15)
    parser.add_argument("--size", type=lambda text: tuple(int(side) for side in text.split("x")), default=(320, 240))
    parser.add_argument("--seconds", type=float, default=1.0, help="that each photo is shown")
    parser.add_argument("--quantizer", type=int, default=20, help="of H.264, 0 is lossless")
    parser.add_argument("--codec", choices=[*_ENCODED, CHANGING], default="h264")
    parser.add_argument("--login", help="basic:USER:PASSWORD or digest:USER:PASSWORD")
    serve(parser.parse_args(argv))
    return 0


if __name__ == "__main__":
    sys.exit(main())
