"""The words of a kit: its README, and for each vendor the commands of its documentation and the files they take."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

Kit = Mapping[str, Any]  # what kit.json holds
_NOT_RUN = (
    "None of these commands was run when this kit was made: the tools are the vendor's and need its account or its "
    "hardware. They follow the documentation named below. Check them against your version."
)
_COLOURS = {"rgb": "RGB", "bgr": "BGR"}


def readme(kit: Kit) -> str:
    """Return README.md of the kit."""
    rows = "\n".join(_model_row(one) for one in kit["models"])
    words = "\n\n".join(f"**{one['name']}**: {preprocessing(one)}" for one in kit["models"][:12])
    more = len(kit["models"]) - 12
    if more > 0:
        words += f"\n\nThe other {more} models: see `preprocessing.json` of each."
    return f"""# Kit of bundle {kit["bundle"]}

What the compiler of an accelerator needs to run the models of this bundle, and what proves that its result is right.

| model | kind | input | outputs | calibration | probes |
|---|---|---|---|---|---|
{rows}

In `models/<model>/`:

* `<model>.nchw.onnx`: FP32, batch 1, every shape static. Its input is float32 (1, 3, height, width), normalised. It
  starts with the first convolution: the compiler puts normalisation and layout in front, in hardware.
* `<model>.uint8.onnx`: the same network with the input of the device, for compilers that take Cast, Transpose and
  arithmetic.
* `preprocessing.json`: size, resize rule, colour order, `mean` and `std` of bytes 0 to 255.
* `calibration/*.npy`, listed in `calibration.txt`: pictures as the device would feed them, uint8 (height, width, 3).
* `probes/NN.input.npy`: golden pictures, (1, height, width, 3) uint8.
* `probes/NN.output-K.npy`: what the FP32 model makes of them, float32, one file for each output.
* `ranges.csv`: range of weights and output of each layer, and what one scale for a whole tensor costs.

Guides: [Hailo](hailo/README.md), [Rockchip](rknn/README.md), [Qualcomm](qualcomm/README.md), [Axis](axis/README.md).

## Check the result

Run each probe with the vendor's runtime or emulator, write every output as float32 to
`OUTPUTS/<model>/NN.output-K.npy` in the shape of the expected file, and compare:

    python check.py OUTPUTS

It prints the cosine of each probe with the expected output, and exits with 1 if one is below .97, if a classifier names
another class, or if a detector loses a clear object. `python check.py --run nchw OUTPUTS` writes such a folder with
ONNX Runtime, so that you see the layout.

## Preprocessing

{words}

Crops of objects are cut with the margin that `crop_margin` says, before they are resized. Outputs are decoded on the
device's CPU: keep box decoding, non-maximum suppression and softmax out of the compiled model.
"""


def _model_row(one: Mapping[str, Any]) -> str:
    given = one["input"]
    outputs = ", ".join(f"{output['name']} {output['shape']}" for output in one["outputs"])
    size = f"{given['width']} x {given['height']}"
    return f"| `{one['name']}` | {one['kind']} | {size} | {outputs} | {one['calibration']} | {one['probes']} |"


def preprocessing(one: Mapping[str, Any]) -> str:
    """Return the preprocessing of a model in words."""
    given = one["input"]
    size = f"{given['width']} x {given['height']} pixels"
    if given["resize"] == "letterbox":
        fit = f"shrink or grow the picture to fit {size} with its proportions kept, put it top left, fill with grey "
        fit += str(given["fill"])
    else:
        fit = f"stretch the picture to {size}"
    how = "averaging when shrinking" if given["interpolation"] == "area" else "bilinear"
    scale = f"then (byte - {one['mean']}) / {one['std']} for each channel"
    return f"{fit} ({how}); {_COLOURS[given['colour']]} order; {scale}."


def vendor_files(kit: Kit) -> dict[str, str]:
    """Return the files of each vendor, by path in the kit."""
    files = {
        "hailo/README.md": _hailo(kit),
        "rknn/README.md": _rknn(kit),
        "qualcomm/README.md": _qualcomm(kit),
        "axis/README.md": _axis(kit),
    }
    for one in kit["models"]:
        normalise = f"normalization1 = normalization({one['mean']}, {one['std']})\n"
        files[f"hailo/{one['name']}.alls"] = normalise
    return files


def _hailo(kit: Kit) -> str:
    name = kit["models"][0]["name"]
    return f"""# Hailo: Dataflow Compiler

{_NOT_RUN}

Sources: Hailo Dataflow Compiler User Guide 3.30 (Hailo-8, -8L); Hailo Model Zoo with Dataflow Compiler 5.4 (Hailo-10H,
-15H). The compiler takes ONNX with static shapes up to opset 17, float NCHW, and runs uint8 NHWC on the device.

From the kit's folder, for `{name}` and every other model:

    hailo parser onnx models/{name}/{name}.nchw.onnx --hw-arch hailo8 --net-name {name.replace("-", "_")}
    hailo optimize {name.replace("-", "_")}.har --hw-arch hailo8 \\
        --calib-set-path models/{name}/calibration/ --model-script hailo/{name}.alls
    hailo compiler {name.replace("-", "_")}_optimized.har --hw-arch hailo8

`hailo/<model>.alls` puts the normalisation in front, so that calibration and inference take the bytes as they are. The
compiler wants at least 64 pictures, 1024 for its finetuning. Batch normalisation is already folded.

If the parser rejects the last operators of an embedder (ReduceL2, Expand, Div), end before them with `--end-node-names`
at the Gemm nodes, and normalise each part and join them on the host, as the file does.
"""


def _rknn(kit: Kit) -> str:
    one = kit["models"][0]
    name = one["name"]
    order = "The pictures are written in the model's order of channels, so leave `quant_img_RGB2BGR` off."
    return f"""# Rockchip: RKNN-Toolkit2

{_NOT_RUN}

Sources: Rockchip RKNN SDK User Guide (RKNN-Toolkit2 1.6 to 2.3). The toolkit takes ONNX with static shapes, opset 12 to
19, and reads calibration pictures from a list of files.

    from pathlib import Path
    import numpy as np
    from PIL import Image
    from rknn.api import RKNN

    folder = Path("models/{name}")
    with open("dataset.txt", "w") as listing:
        for line in (folder / "calibration.txt").read_text().split():
            picture = (folder / line).with_suffix(".png")
            Image.fromarray(np.load(folder / line)).save(picture)
            listing.write(f"{{picture.resolve()}}\\n")
    rknn = RKNN()
    rknn.config(mean_values=[{one["mean"]}], std_values=[{one["std"]}], target_platform="rk3588")
    assert rknn.load_onnx(model=str(folder / "{name}.nchw.onnx")) == 0
    assert rknn.build(do_quantization=True, dataset="dataset.txt") == 0
    assert rknn.export_rknn("{name}.rknn") == 0
    assert rknn.init_runtime() == 0  # the simulator
    outputs = rknn.inference(inputs=[np.load(folder / "probes/00.input.npy")], data_format=["nhwc"])

{order} `mean` and `std` differ between models: take them from `preprocessing.json`.
"""


def _qualcomm(kit: Kit) -> str:
    one = kit["models"][0]
    name, given = one["name"], one["input"]
    return f"""# Qualcomm: AI Hub, QNN

{_NOT_RUN}

Source: Qualcomm AI Hub Workbench documentation (`qai_hub`, 2026): `submit_quantize_job` calibrates an ONNX file on
arrays of its own input, `submit_compile_job` makes a QNN context binary of the result. An account is needed, and the
model and the pictures are uploaded to Qualcomm.

    from pathlib import Path
    import numpy as np
    import qai_hub as hub

    folder = Path("models/{name}")
    mean, std = np.float32({one["mean"]}), np.float32({one["std"]})
    pictures = [np.load(folder / line) for line in (folder / "calibration.txt").read_text().split()]
    arrays = [((one - mean) / std).transpose(2, 0, 1)[None].astype(np.float32) for one in pictures]
    quantised = hub.submit_quantize_job(
        model=str(folder / "{name}.nchw.onnx"),
        calibration_data={{"{given["name"]}": arrays}},
        weights_dtype=hub.QuantizeDtype.INT8,
        activations_dtype=hub.QuantizeDtype.INT8,
    ).get_target_model()
    compiled = hub.submit_compile_job(
        model=quantised,
        device=hub.Device("QCS6490 (Proxy)"),
        options="--target_runtime qnn_context_binary --quantize_io",
    )

With the QAIRT SDK on your own machine, `qairt-converter` and `qairt-quantizer` take the same file; the list of raw
inputs is made from the same arrays. If INT8 fails `check.py`, try INT16 activations.
"""


def _axis(kit: Kit) -> str:
    one = kit["models"][0]
    name = one["name"]
    return f"""# Axis: DLPU of ARTPEC-8, ARTPEC-9 and CV25

{_NOT_RUN}

Sources: developer.axis.com, Computer vision on device (model conversion, optimization tips, supported frameworks; read
in November 2026). ARTPEC-8 and -9 take TensorFlow Lite only, INT8, batch 1, tensors of at most four dimensions. On
ARTPEC-8 quantise **per tensor**: per-channel weights are slow there. ARTPEC-9 takes per-channel weights for some
operators. CV25 takes ONNX or TensorFlow Lite and quantises in its own compiler.

`onnx2tf` (a free tool) converts ONNX to TensorFlow Lite and calibrates:

    import numpy as np
    from pathlib import Path
    folder = Path("models/{name}")
    stack = [np.load(folder / line) for line in (folder / "calibration.txt").read_text().split()]
    np.save("calibration.npy", np.stack(stack).astype(np.float32))

    onnx2tf -i models/{name}/{name}.nchw.onnx -oiqt -qt per-tensor \\
        -cind "{one["input"]["name"]}" calibration.npy "[[[{one["mean"]}]]]" "[[[{one["std"]}]]]"
    larod-client -g {name}.nchw_full_integer_quant.tflite -c axis-a8-dlpu-tflite -i ""

## Will one scale for a whole tensor do?

`ranges.csv` of each model says what it costs: `bits_lost_by_weakest_channel` is how many of the 8 bits the channel with
the smallest weights loses when all channels share the scale of the largest. Above about 4 bits in a depthwise
convolution, expect `check.py` to fail; then train with quantisation in the loop, or choose a network of plain
convolutions, which this hardware prefers anyway. `output_low_99.99` and `output_high_99.99` are the ranges to give to a
converter that takes ranges.
"""
