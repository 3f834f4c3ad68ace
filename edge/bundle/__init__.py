"""Bundle of finesight."""
