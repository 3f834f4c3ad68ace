"""The repository on the server: keys, signed metadata, publishing, checking, collecting garbage and recovery.

Only this room writes to a repository and uses private keys. No device imports it.
"""
