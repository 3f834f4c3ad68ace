"""The tables of sets, pictures and crops. A crop is one object of a picture: what people name in the review."""

TABLES = """
CREATE TABLE IF NOT EXISTS sets(
    id INTEGER PRIMARY KEY,
    name TEXT NOT NULL UNIQUE,
    kind TEXT NOT NULL CHECK(kind IN ('uploads', 'folder', 'inbox', 'taught', 'evaluation')),
    folder TEXT NOT NULL,                -- absolute: where its pictures lie; they are never copied from a folder
    category TEXT,                       -- of all its objects; NULL: the models tell it
    model TEXT NOT NULL DEFAULT '',      -- id of the choice in console.models that proposes; '': the default one
    created_at REAL NOT NULL,            -- Unix time, seconds; so in all tables
    created_by TEXT NOT NULL,
    version INTEGER NOT NULL DEFAULT 1
);
CREATE TABLE IF NOT EXISTS pictures(
    id INTEGER PRIMARY KEY,
    set_id INTEGER NOT NULL REFERENCES sets(id) ON DELETE CASCADE,
    name TEXT NOT NULL,                  -- path below the folder of its set, with /
    sha256 TEXT NOT NULL,
    size INTEGER NOT NULL,               -- bytes
    width INTEGER NOT NULL,              -- upright, pixels
    height INTEGER NOT NULL,
    boxes TEXT NOT NULL DEFAULT 'none' CHECK(boxes IN ('whole', 'none', 'proposed', 'confirmed')),
    uncertainty REAL NOT NULL DEFAULT 1, -- of its proposed boxes, 0..1; the queue shows the highest first
    why TEXT NOT NULL DEFAULT '',        -- of the uncertainty, or of a picture that cannot be read
    source TEXT NOT NULL DEFAULT '{}',   -- JSON: device, camera, time, reason, as far as known
    split TEXT NOT NULL DEFAULT '',      -- train, val, test; '': none
    added_at REAL NOT NULL,
    version INTEGER NOT NULL DEFAULT 1,  -- of its boxes; an edit names the version that it saw
    UNIQUE(set_id, name)
);
CREATE INDEX IF NOT EXISTS pictures_queue ON pictures(set_id, boxes, uncertainty DESC, id);
CREATE TABLE IF NOT EXISTS crops(
    id INTEGER PRIMARY KEY,
    set_id INTEGER NOT NULL REFERENCES sets(id) ON DELETE CASCADE,
    picture_id INTEGER NOT NULL REFERENCES pictures(id) ON DELETE CASCADE,
    x0 REAL NOT NULL, y0 REAL NOT NULL, x1 REAL NOT NULL, y1 REAL NOT NULL, -- pixels of the upright picture
    box_source TEXT NOT NULL,            -- whole, human, or what proposed it
    box_score REAL NOT NULL DEFAULT 1,
    state TEXT NOT NULL DEFAULT 'open' CHECK(state IN ('open', 'item', 'unknown', 'nothing')),
    category TEXT,                       -- decided, where state is item; known before, where it is open
    item TEXT,                           -- id, where state is item; expected before, where it is open
    label TEXT,
    decided_by TEXT,
    decided_at REAL,
    version INTEGER NOT NULL DEFAULT 1,  -- of the decision; an edit names the version that it saw
    proposals TEXT,                      -- JSON list of {category, item, label, similarity}, best first; NULL: not yet
    proposed_category TEXT,              -- of the classifier
    similarity REAL,                     -- of the best proposal, -1..1
    doubt REAL NOT NULL DEFAULT 1,       -- 0..1: the worst is reviewed first
    fold INTEGER,                        -- id of the crop that stands for this near-duplicate; NULL: for itself
    vector BLOB,                         -- float32, unit length; NULL: not yet
    space TEXT                           -- embedding space of the vector
);
CREATE INDEX IF NOT EXISTS crops_of_picture ON crops(picture_id);
CREATE INDEX IF NOT EXISTS crops_queue ON crops(set_id, state, doubt DESC, id);
CREATE INDEX IF NOT EXISTS crops_of_item ON crops(category, item);
"""
