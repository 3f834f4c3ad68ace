"""Labelling of finesight."""
