"""Ready-made specs of published detectors: YOLOX trained on COCO.

Megvii publishes them under Apache-2.0. Since release 0.1.1 they take BGR from 0 to 255; before, they took RGB and
normalised it, which converted files do inside the graph.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, get_args

from edge.errors import QuantizeError
from edge.manifest.model import Preprocess
from quantize.network_spec import Spec, read_spec, spec_path

BuiltIn = Literal["yolox-coco", "yolox-coco-rgb"]
BUILT_IN: tuple[BuiltIn, ...] = get_args(BuiltIn)
_COCO = (
    "person,bicycle,car,motorcycle,airplane,bus,train,truck,boat,traffic light,fire hydrant,stop sign,parking meter,"
    "bench,bird,cat,dog,horse,sheep,cow,elephant,bear,zebra,giraffe,backpack,umbrella,handbag,tie,suitcase,frisbee,"
    "skis,snowboard,sports ball,kite,baseball bat,baseball glove,skateboard,surfboard,tennis racket,bottle,wine glass,"
    "cup,fork,knife,spoon,bowl,banana,apple,sandwich,orange,broccoli,carrot,hot dog,pizza,donut,cake,chair,couch,"
    "potted plant,bed,dining table,toilet,tv,laptop,mouse,remote,keyboard,cell phone,microwave,oven,toaster,sink,"
    "refrigerator,book,clock,vase,scissors,teddy bear,hair drier,toothbrush"
)
COCO = _COCO.split(",")
_RELEASE = "https://github.com/Megvii-BaseDetection/YOLOX/releases/download/0.1.1rc0"
_STRIDES = (8, 16, 32)
_NORMALISING = {"Sub", "Div", "Mul", "BatchNormalization"}  # operators that change the input's range


def find_spec(onnx: Path, given: str | None = None, keep_labels: Sequence[str] | None = None) -> Spec:
    """Return the spec of a detector's ONNX file from another source.

    Args:
        onnx: the file.
        given: a spec file, or one of BUILT_IN; None: the JSON file beside the ONNX file, else what its shapes tell.
        keep_labels: the only labels to report; None: as in the spec.

    Raises:
        QuantizeError: the file is missing or no ONNX, there is no spec and its shapes are not those of YOLOX on COCO,
            or it has no such label.
    """
    if not onnx.is_file():
        raise QuantizeError(
            f"{onnx}: no such file; YOLOX models (Apache-2.0) are published as {_RELEASE}/yolox_nano.onnx, "
            "yolox_tiny.onnx, yolox_s.onnx, …"
        )
    if given in BUILT_IN:
        spec = _yolox_spec(onnx, "bgr" if given == "yolox-coco" else "rgb")
    elif given is not None:
        spec = read_spec(Path(given))
    elif spec_path(onnx).is_file():
        spec = read_spec(spec_path(onnx))
    else:
        spec = _yolox_spec(onnx)
    if keep_labels is None:
        return spec
    if unknown := [label for label in keep_labels if label not in spec.labels]:
        raise QuantizeError(f"{onnx}: has no label {unknown[0]!r}; its labels are: {', '.join(spec.labels)}")
    return spec.model_copy(update={"keep_labels": list(keep_labels)})


def _yolox_spec(onnx: Path, colour: Literal["rgb", "bgr"] | None = None) -> Spec:
    """Return the spec of a YOLOX file; without a colour, a graph that normalises its input takes RGB."""
    from quantize.onnx_file import read_onnx

    graph = read_onnx(onnx).graph
    sides, (_, *shape) = _shape_of(graph.input[0])[2:], _shape_of(graph.output[0])
    width_height = sides[::-1]
    cells = sum((sides[0] // stride) * (sides[1] // stride) for stride in _STRIDES) if len(sides) == 2 else 0
    if len(graph.output) != 1 or not cells or shape != [cells, 5 + len(COCO)]:
        raise QuantizeError(
            f"{onnx}: found an input of {_shape_of(graph.input[0])} and an output of {_shape_of(graph.output[0])}, "
            f"which is not YOLOX trained on COCO; give --detector-spec with a file that describes the model"
        )
    if any(node.op_type == "Exp" for node in graph.node):  # the activations of YOLOX need none
        raise QuantizeError(f"{onnx}: decodes its boxes itself; export it without --decode_in_inference")
    if colour is None:
        first = next(node.op_type for node in graph.node if graph.input[0].name in node.input)
        colour = "rgb" if first in _NORMALISING else "bgr"
    return Spec(
        kind="detector",
        input_name=graph.input[0].name,
        output_names=[graph.output[0].name],
        preprocess=Preprocess(
            width=width_height[0],
            height=width_height[1],
            resize="letterbox",
            layout="nchw",
            dtype="float32",
            colour=colour,
        ),
        decoder="yolox",
        strides=list(_STRIDES),
        labels=COCO,
        score_threshold=0.25,
        iou_threshold=0.5,
    )


def _shape_of(value: Any) -> list[int]:
    """Return the shape of a graph's input or output; 0 for a free size."""
    return [size.dim_value for size in value.type.tensor_type.shape.dim]
