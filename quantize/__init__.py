"""Trained model to INT8 bundle: export, calibration, comparison gates, packing."""
