"""Data expansion: cut objects out of pictures and paste them into scenes with exact boxes and masks.

It never trains on what it writes; only the room `self_tuning` does, and nothing else imports that room.
Read `scenes` first (what is written), then `cutouts` (where objects come from) and `paste` (how a scene is composed).
"""
