"""Build a device with a kiosk: the runtime, the kiosk and its server, and the taught items."""

from __future__ import annotations

import threading
from contextlib import ExitStack
from functools import partial

from edge.config.config_file import ConfigFile
from edge.config.schema import DeviceConfig, KioskConfig, SeekConfig
from edge.kiosk.kiosk import Kiosk
from edge.kiosk.server import KioskServer
from edge.kiosk.taught_items import TaughtItems
from edge.kiosk.taught_store import TaughtStore
from edge.kiosk.taught_upload import pending_items
from edge.kiosk.thumbnails import ItemThumbnails
from edge.runtime import Runtime
from edge.telemetry.counters import Counters
from edge.uploads.upload import Uploader, http_put


def open_kiosk(
    config: DeviceConfig,
    kiosk_config: KioskConfig,
    file: ConfigFile | None,
    stack: ExitStack,
    stop: threading.Event | None = None,
) -> Runtime:
    """Open the device's runtime and its kiosk; the stack closes them in reverse order.

    `stop` ends the loading of the models, see `Runtime`.

    Raises:
        FinesightError: a part is unusable, or the address cannot be listened on.
    """
    counters = Counters()
    store = TaughtStore(config.state_dir / "overlay", kiosk_config.max_taught)
    thumbnails = ItemThumbnails(config.state_dir, store)
    seek = config.recognition.seek or SeekConfig()
    taught_items = TaughtItems(store, thumbnails.held, counters, seek.looks)
    runtime = stack.enter_context(Runtime(config, file, taught_items.add_to, counters, stop))
    kiosk = stack.enter_context(
        Kiosk(runtime, store, kiosk_config.camera, kiosk_config.looks, config.recognition.min_object_px)
    )
    uploader = None
    if kiosk_config.upload_url is not None:
        uploader = stack.enter_context(
            Uploader(
                "taught-upload",
                partial(pending_items, store),
                http_put(kiosk_config.upload_url, kiosk_config.upload_token),
                lambda result: counters.add("taught_uploads", result=result),
                counters,
            )
        )
    stack.enter_context(KioskServer(kiosk_config, kiosk, thumbnails, counters, uploader, runtime.timer))
    return runtime
