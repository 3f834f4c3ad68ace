"""Recognition: which product or vehicle each camera frame shows, and the events that say so.

Owns detection, tracking, the choice of tracks to embed, gallery search, the open-set decision and the events of every
camera, and the swap to a newly activated bundle and gallery. Never opens a camera, a socket or a broker connection, and
never starts a model itself: engines and galleries arrive loaded.

Read `pipeline.py` first: it follows one frame through the other modules.
"""
