"""Pictures that leave the device: snapshots of recognised objects, and the annotated live view.

Owns how they are cut, drawn and encoded, and the pages that show them. Everything is off unless it is configured.
Never recognises anything, opens a socket or stores a picture on disk, and the frame path never waits for it.
Read `snapshots.py` first, then `live_view.py` and `routes.py`.
"""
