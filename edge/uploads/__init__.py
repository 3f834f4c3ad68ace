"""Sends files of the device to a server by HTTP PUT, until the server has them. Knows nothing of what they hold."""
