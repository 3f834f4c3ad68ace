"""The console: a web page for people who label, curate, train, search and operate a fleet. Server only.

Rooms, the floor above may use the floor below:
    cli · demo · web · pages · services · exchange · review boxes galleries search fleet · training · models sets ·
    access background · storage · settings

Owns what people decide, in one SQLite file. Never holds signing keys in a page, never copies pictures that lie in a
folder, and never imports torch: training runs in child processes.
"""
