"""What every model in a manifest has: its forms, its input and its outputs.

Rules this module keeps:
1. Everything a model needs (size, colour, layout) is here, never in code or device YAML.
2. Unknown keys are ignored, so that an older device can read a newer manifest (TUF ADR 0008).
3. The input and the outputs of a model are bounded, so that no manifest makes a device run out of memory.
"""

# no `from __future__ import annotations`: pydantic would compile and evaluate each field's type again at every start

import math
from typing import Annotated, Any, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field, model_validator

from edge.manifest.fields import FormName, Fraction, Name, Real, RelativePath, is_form_file

MAX_DIM = 16384  # numbers of a joint vector
MAX_ELEMENTS = 1 << 27  # of one input or output of a model: 512 MiB as float32
MAX_NAMES, MAX_OUTPUTS = 10_000, 16
Target = Literal["fp32", "ort-u8", "fp16", "openvino", "tensorrt-s8"]  # first the one that most engines run
TARGETS: tuple[str, ...] = get_args(Target)
Prose = Annotated[str, Field(max_length=10_000)]
_Positive = Annotated[float, Field(ge=1e-6, le=1e6)]


class ManifestPart(BaseModel):
    """A part of a manifest."""

    # its validator is built once, inside that of the manifest; on its own when it is used alone
    model_config = ConfigDict(frozen=True, extra="ignore", protected_namespaces=(), defer_build=True)


class Preprocess(ManifestPart):
    """How a crop or frame becomes the model's input. Normalisation is part of the graph."""

    width: Annotated[int, Field(ge=1, le=8192)]  # pixels
    height: Annotated[int, Field(ge=1, le=8192)]  # pixels
    resize: Literal["stretch", "letterbox"] = "stretch"  # letterbox: top-left aligned, rest filled
    fill: Annotated[int, Field(ge=0, le=255)] = 114  # grey level of the letterbox border
    interpolation: Literal["linear", "area"] = "linear"  # area: averages when shrinking, linear when growing
    layout: Literal["nhwc", "nchw"] = "nhwc"  # order of the axes
    dtype: Literal["uint8", "float32"] = "uint8"  # float32 carries 0..255
    colour: Literal["rgb", "bgr"] = "rgb"  # order of the channels
    crop_margin: Fraction = 0.0  # the box is enlarged by this fraction of its size on each side before cropping
    mean: tuple[Real, Real, Real] = (0.0, 0.0, 0.0)  # of pixels scaled to 0..1; the graph applies it
    std: tuple[_Positive, _Positive, _Positive] = (1.0, 1.0, 1.0)  # standard deviation, like mean


class Model(ManifestPart):
    """A model of a bundle."""

    files: dict[Target, RelativePath]  # ONNX file of each form; forms that this version does not know are ignored
    other_files: dict[FormName, RelativePath] = {}  # forms in `files` that only a plug-in may run
    input_name: Name  # in the ONNX graph
    output_names: Annotated[list[Name], Field(min_length=1, max_length=MAX_OUTPUTS)]  # in the ONNX graph, in order
    preprocess: Preprocess  # how the input is prepared
    ship: Target = "ort-u8"  # the target chosen by accuracy and latency
    why: Prose = ""  # why this target was chosen
    max_batch: Annotated[int, Field(ge=1, le=1024)] = 1  # most frames or crops in one run

    @model_validator(mode="before")
    @classmethod
    def _leave_out_unknown_forms(cls, given: Any) -> Any:
        """Keep the forms that this version knows, if there are any: a newer bundle may hold others, and ship one."""
        files = given.get("files") if isinstance(given, dict) else None
        if not isinstance(files, dict):
            return given
        known = {form: path for form, path in files.items() if form in TARGETS}
        if not known or len(known) == len(files):
            return given
        others = {form: path for form, path in files.items() if form not in known and is_form_file(form, path)}
        ship = given.get("ship")
        if isinstance(ship, str) and ship in files and ship not in known:
            given = given | {"ship": min(known, key=TARGETS.index)}
        return given | {"files": known, "other_files": others}

    @property
    def every_file(self) -> dict[str, str]:
        """The file of each form, also of those that only a plug-in may run."""
        return dict([*self.other_files.items(), *self.files.items()])

    @model_validator(mode="after")
    def _ship_exists(self) -> "Model":
        if self.ship not in self.files:
            raise ValueError(f"ship is {self.ship!r}; choose one of {sorted(self.files)}")
        return self

    def output_shapes(self, rows: int) -> list[tuple[int, ...]]:
        """Return the output shapes for a batch, in order."""
        raise NotImplementedError

    @model_validator(mode="after")
    def _tensors_are_bounded(self) -> "Model":
        spec, shapes = self.preprocess, self.output_shapes(self.max_batch)
        if len(set(self.output_names)) != len(shapes):
            raise ValueError(f"found output_names {self.output_names}, expected {len(shapes)} different names")
        for what, shape in [("input", (self.max_batch, spec.height, spec.width, 3)), *(("output", s) for s in shapes)]:
            if not 0 < math.prod(shape) <= MAX_ELEMENTS:
                raise ValueError(f"its {what} has the shape {list(shape)}, expected 1 to {MAX_ELEMENTS} numbers")
        return self
