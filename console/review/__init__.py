"""Names crops: the queue, proposals, decisions with their log, and what goes on to the gallery.

Owns who decided what. Never knows the web, never decides by itself, and never changes a picture or a gallery.
Read decisions.py first, then queue.py and propose.py.
"""
