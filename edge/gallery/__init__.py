"""Gallery of finesight."""
