"""What the kiosk and the health server share: who may ask, and for how long a client may hold a connection.

Owns the rules for host, token, origin and certificate, and the listening socket. Never answers a request, and needs no
optional package. Read `access.py` first, then `listener.py`.
"""
