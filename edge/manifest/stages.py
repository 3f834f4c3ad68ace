"""The models of a bundle other than its embedders: detector, classifier, localiser and finder."""

# no `from __future__ import annotations`: pydantic would compile and evaluate each field's type again at every start

from typing import Annotated, Literal

from pydantic import Field

from edge.finder_shape import FinderShape
from edge.manifest.fields import Fraction, Name, Real, RelativePath
from edge.manifest.model import MAX_DIM, MAX_NAMES, MAX_OUTPUTS, Model

_Cells = Annotated[int, Field(ge=1, le=1024)]
_Strides = Annotated[list[_Cells], Field(min_length=1, max_length=MAX_OUTPUTS)]
_Channels = Annotated[int, Field(ge=0, le=MAX_DIM)]
_Names = Annotated[list[Name], Field(max_length=MAX_NAMES)]
_Labels = Annotated[list[Name], Field(min_length=1, max_length=MAX_NAMES)]


class DetectorModel(Model):
    """Finds objects in a frame."""

    decoder: Literal["ltrb", "yolox"]  # form of the output: ltrb as in FCOS, yolox as in YOLOX
    strides: _Strides  # input pixels per cell of each output level
    labels: _Labels  # ["object"] when class-agnostic
    score_threshold: Annotated[float, Field(gt=0, lt=1)]  # lowest score of a detection; the decoder compares its logit
    iou_threshold: Fraction = 0.6  # overlap from which a better box of any reported label suppresses a box
    keep_labels: _Names | None = None  # report only these; boxes of others suppress nothing; None: all

    def output_shapes(self, rows: int) -> list[tuple[int, ...]]:
        """Return the output shapes for a batch, in order, as the decoder expects them."""
        width, height = self.preprocess.width, self.preprocess.height
        if self.decoder == "yolox":
            cells = sum((height // stride) * (width // stride) for stride in self.strides)
            return [(rows, cells, 5 + len(self.labels))]
        return [(rows, 4 + len(self.labels), -(-height // stride), -(-width // stride)) for stride in self.strides]


class ClassifierModel(Model):
    """Names the category of a crop."""

    labels: _Labels  # categories, in the order of the output
    temperature: Annotated[float, Field(ge=1e-4, le=1e4)] = 1.0  # logits are divided by it before softmax
    threshold: Real = 0.5  # below it the answer is unknown_category, unless a match confirms the category
    descriptor_dim: Annotated[int, Field(ge=0, le=MAX_DIM)] = 0  # length of its descriptor output; 0: it has none
    # Lowest largest logit of a crop that shows one of its categories; below it the crop is unfamiliar, and its
    # probabilities sum to a quarter only, see edge.inference.stages. None: every crop is familiar
    least_logit: Real | None = None

    def output_shapes(self, rows: int) -> list[tuple[int, ...]]:
        """Return the output shapes for a batch, in order: one logit per label, then the descriptor if there is one."""
        descriptor = [(rows, self.descriptor_dim)] if self.descriptor_dim else []
        return [(rows, len(self.labels)), *descriptor]


class LocaliserModel(Model):
    """Segments the object in a crop."""

    stride: _Cells = 2  # input pixels per cell of the mask
    # Window of the guided filter that refines a silhouette, as a fraction of the longer side of the crop; 0: no filter.
    guided_radius: Annotated[float, Field(ge=0, le=0.25)] = 0.0

    def output_shapes(self, rows: int) -> list[tuple[int, ...]]:
        """Return the output shapes for a batch: object logits."""
        return [(rows, 1, self.preprocess.height // self.stride, self.preprocess.width // self.stride)]


class FinderModel(Model):
    """Finds the object of a query picture in a scene; `files` holds its trunk."""

    shape: FinderShape  # scales, grids and levels
    channels: Annotated[int, Field(ge=1, le=MAX_DIM)]  # channels of the representation
    guide: _Channels  # channels of the scene that are input to the conversion, beside the heat maps
    conversion: RelativePath  # FP32 ONNX model: heat maps and guide in, one heat map out
    # INT8 model of the conversion, which runs beside an INT8 trunk; None: the FP32 one does
    conversion_int8: RelativePath | None = None
    score_threshold: Real = 0.6  # lowest score of a box: its peak in the heat map times its similarity
    # Only finders trained before the verification step have it. Their score means something else, so they are not run
    # (ADR 0010).
    map_threshold: Real | None = None

    @property
    def conversions(self) -> list[str]:
        """Paths of every form of the conversion."""
        return [self.conversion, *([self.conversion_int8] if self.conversion_int8 else [])]

    def conversion_for(self, form: str) -> str:
        """Return the path of the conversion that runs beside a form of the trunk."""
        return self.conversion_int8 if form == "ort-u8" and self.conversion_int8 else self.conversion

    def output_shapes(self, rows: int) -> list[tuple[int, ...]]:
        """Return the trunk's output shapes for a batch: the representation, then the guide if there is one."""
        width, height, shape = self.preprocess.width, self.preprocess.height, self.shape
        shapes: list[tuple[int, ...]] = [(rows, self.channels, height // shape.stride, width // shape.stride)]
        if self.guide:
            shapes.append((rows, self.guide, height // shape.map_stride, width // shape.map_stride))
        return shapes
