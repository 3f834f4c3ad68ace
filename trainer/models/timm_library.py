"""The only import of timm: its hub library tells its makers about this machine unless told not to before.

Nothing is downloaded unless somebody asks for weights from the hub.
"""

from __future__ import annotations

import os

os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"
import timm

__all__ = ["timm"]
