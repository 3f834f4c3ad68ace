"""Capture of finesight."""
