"""The only import of ONNX Runtime: from 1.31 on, its Linux packages report to their maker unless told not to before.

Import `ort` from here, and `onnxruntime.quantization` after it. Child processes inherit the setting.
"""

from __future__ import annotations

import os

# Its own switch, disable_telemetry_events(), comes too late: the import writes a device id into the home folder.
os.environ["ORT_DISABLE_TELEMETRY"] = "1"
import onnxruntime as ort

__all__ = ["ort"]
