"""A device with a kiosk: the running device, its page, and what it was taught, wired together."""

from __future__ import annotations

from contextlib import ExitStack

from edge.config import DeviceConfig, KioskConfig, SeekConfig
from edge.config_file import ConfigFile
from edge.health import Counters
from edge.item_pictures import ItemPictures
from edge.kiosk import Kiosk
from edge.kiosk_server import KioskServer
from edge.overlay import Overlay
from edge.overlay_store import OverlayStore
from edge.overlay_upload import Uploader, put_to
from edge.runtime import Runtime


def open_kiosk(config: DeviceConfig, kiosk: KioskConfig, file: ConfigFile | None, stack: ExitStack) -> Runtime:
    """Open everything but the cameras, then those; the stack closes it in turn.

    Raises:
        FinesightError: something is unusable, or the address cannot be listened on.
    """
    counters = Counters()
    store = OverlayStore(config.state_dir / "overlay", kiosk.max_taught)
    pictures = ItemPictures(config.state_dir, store)
    seek = config.recognition.seek or SeekConfig()
    overlay = Overlay(store, pictures.has_item, counters, seek.looks)
    runtime = stack.enter_context(Runtime(config, file, overlay.over, counters))
    page = stack.enter_context(Kiosk(runtime, store, kiosk.camera, kiosk.looks, config.recognition.min_object_px))
    uploader = None
    if kiosk.upload_url is not None:
        uploader = stack.enter_context(Uploader(store, put_to(kiosk.upload_url, kiosk.upload_token), counters))
    stack.enter_context(KioskServer(kiosk, page, overlay, pictures, counters, uploader))
    return runtime
