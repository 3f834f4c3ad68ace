"""The operator's side of the fleet server: `edge-sync devices`, `send` and `commands`, and the client of its HTTP API.

Owns the requests to a fleet server and how the command line shows the answers. Keeps nothing. Read `client` first.
"""
