"""Diagnostics of finesight."""
