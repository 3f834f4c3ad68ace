"""Inference: run the models of a bundle.

This room owns the engines (ONNX Runtime, OpenVINO, TensorRT), the choice between them, preprocessing, the decoding of
outputs, and fingerprints of loaded models. It never tracks, searches or decides, and it never falls back silently.
Read stages.py first, then engine.py.
"""
