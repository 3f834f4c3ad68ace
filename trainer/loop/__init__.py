"""Loop of finesight."""
