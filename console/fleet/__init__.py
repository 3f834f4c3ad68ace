"""Devices and rollouts of a fleet, by the fleet server and the signed repository."""
