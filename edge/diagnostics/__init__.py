"""Tools for the operator: check, doctor, status, bench, replay, support bundle, and the health server.

Owns what `edge` prints about a device, and the HTTP health endpoints.
Never changes a device, and nothing in the frame loop imports it.
Read `doctor.py` first; `health_server.py` runs inside `edge run`.
"""
