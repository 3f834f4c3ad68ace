"""Evaluation of finesight."""
