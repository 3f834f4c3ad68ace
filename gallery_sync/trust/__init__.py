"""The signed metadata on a device: The Update Framework's client, with floors that survive a power cut.

This room says which small documents are signed, fresh enough and not older than those before. It installs nothing.
"""
