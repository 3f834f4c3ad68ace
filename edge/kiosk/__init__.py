"""Kiosk of finesight."""
