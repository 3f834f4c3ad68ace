"""Models of finesight."""
