"""How a device gets its root of trust, its name, line and group, its repository and its broker's credentials.

The server writes enrolments; a device reads one, once. This room downloads no release.
"""
