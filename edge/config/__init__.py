"""Config of finesight."""
