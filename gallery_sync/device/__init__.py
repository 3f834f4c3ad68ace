"""One release on one device: read what is signed, fetch it, verify it as a whole, and stage it beside what serves.

This room changes nothing that serves, but for urgent deletions. It does not decide when to do any of it.
"""
