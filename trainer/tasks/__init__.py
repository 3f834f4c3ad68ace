"""Tasks of finesight."""
