"""The tables of boxes: which round proposed for a picture, and what a person changed in it."""

TABLES = """
CREATE TABLE IF NOT EXISTS box_rounds(
    id INTEGER PRIMARY KEY,
    set_id INTEGER NOT NULL REFERENCES sets(id) ON DELETE CASCADE,
    kind TEXT NOT NULL,                  -- cues, detector (trained here), bundle (the detector of a bundle)
    job INTEGER,                         -- that proposed; NULL: none
    at REAL NOT NULL,
    pictures INTEGER NOT NULL,           -- that it proposed for
    boxes INTEGER NOT NULL
);
CREATE TABLE IF NOT EXISTS box_edits(
    picture_id INTEGER PRIMARY KEY REFERENCES pictures(id) ON DELETE CASCADE,
    set_id INTEGER NOT NULL,
    round INTEGER NOT NULL,              -- the last one that proposed for this picture
    untouched INTEGER,                   -- proposals that needed no edit; NULL: nobody confirmed the picture yet
    moved INTEGER,
    added INTEGER,
    removed INTEGER
);
CREATE INDEX IF NOT EXISTS box_edits_of_round ON box_edits(set_id, round);
"""
