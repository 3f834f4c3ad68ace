"""Recognition of finesight."""
