"""What the HTTP servers share: who may ask, for how long a client may hold a connection, and the thread that serves.

Owns the rules for host, token, origin and certificate, the listening socket, and uvicorn. Never decides what to answer.
Only `uvicorn_server.py` needs an optional package; whoever imports it has it. Read `access.py` first, then
`listener.py`.
"""
