"""Inference of finesight."""
