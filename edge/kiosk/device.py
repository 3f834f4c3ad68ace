"""A device with a kiosk: the running device, its page, and what it was taught, wired together."""

from __future__ import annotations

from contextlib import ExitStack

from edge.config.file import ConfigFile
from edge.config.schema import DeviceConfig, KioskConfig, SeekConfig
from edge.kiosk.kiosk import Kiosk
from edge.kiosk.server import KioskServer
from edge.kiosk.taught_items import TaughtItems
from edge.kiosk.taught_store import TaughtStore
from edge.kiosk.taught_upload import Uploader, put_to
from edge.kiosk.thumbnails import ItemThumbnails
from edge.runtime import Runtime
from edge.telemetry.metrics import Counters


def open_kiosk(config: DeviceConfig, kiosk: KioskConfig, file: ConfigFile | None, stack: ExitStack) -> Runtime:
    """Open everything but the cameras, then those; the stack closes it in turn.

    Raises:
        FinesightError: something is unusable, or the address cannot be listened on.
    """
    counters = Counters()
    store = TaughtStore(config.state_dir / "overlay", kiosk.max_taught)
    pictures = ItemThumbnails(config.state_dir, store)
    seek = config.recognition.seek or SeekConfig()
    overlay = TaughtItems(store, pictures.has_item, counters, seek.looks)
    runtime = stack.enter_context(Runtime(config, file, overlay.over, counters))
    page = stack.enter_context(Kiosk(runtime, store, kiosk.camera, kiosk.looks, config.recognition.min_object_px))
    uploader = None
    if kiosk.upload_url is not None:
        uploader = stack.enter_context(Uploader(store, put_to(kiosk.upload_url, kiosk.upload_token), counters))
    stack.enter_context(KioskServer(kiosk, page, overlay, pictures, counters, uploader))
    return runtime
