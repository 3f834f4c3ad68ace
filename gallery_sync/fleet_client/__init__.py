"""The operator's side of the fleet server: the client of its HTTP API, and the verbs of `edge-sync` that use it.

Owns the requests to a fleet server and how the command line shows the answers. Keeps nothing. Read `client` first.
"""
