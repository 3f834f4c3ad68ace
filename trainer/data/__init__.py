"""Data of finesight."""
