"""Messaging of finesight."""
