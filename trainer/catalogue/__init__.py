"""Catalogues: pictures of items become a gallery, on all cores, in shards, and on many machines.

Owns the part files that a run leaves behind and the way back from them to a gallery. Trains nothing.
"""
