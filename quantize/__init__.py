"""Turns trained networks into INT8 models and one bundle for devices.

Owns FP32 export, calibration, the INT8 graph, the gates that compare INT8 with FP32, open-set thresholds and packing.
Never trains, and never runs on a device. Reaches trainer through one import, in `quantize.export`.
Read `quantize.bundle.pack` first: it lists the steps from networks to a bundle folder.
"""
