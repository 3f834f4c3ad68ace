"""Telemetry of finesight."""
