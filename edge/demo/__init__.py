"""Demo of finesight."""
