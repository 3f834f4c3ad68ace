"""The tables of sets, pictures and crops. A crop is one object of a picture: what people name in the review."""

TABLES = """
CREATE TABLE IF NOT EXISTS sets(
    id INTEGER PRIMARY KEY AUTOINCREMENT,
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
    id INTEGER PRIMARY KEY AUTOINCREMENT,
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
    id INTEGER PRIMARY KEY AUTOINCREMENT,
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
CREATE TABLE IF NOT EXISTS set_details(
    set_id INTEGER PRIMARY KEY REFERENCES sets(id) ON DELETE CASCADE,
    shows TEXT NOT NULL CHECK(shows IN ('objects', 'scenes')), -- one object fills each picture, or boxes come first
    names TEXT NOT NULL DEFAULT 'expect',   -- what the names of a data set are worth: ignore, expect or decide
    looked_at REAL,                      -- when its folder was last read to the end; NULL: never
    left_out TEXT NOT NULL DEFAULT '[]'  -- JSON: what that reading left out, and why
);
CREATE TABLE IF NOT EXISTS picture_problems( -- files that are no pictures, and pictures that changed or vanished
    set_id INTEGER NOT NULL REFERENCES sets(id) ON DELETE CASCADE,
    name TEXT NOT NULL,
    picture_id INTEGER REFERENCES pictures(id) ON DELETE CASCADE, -- NULL: it never became a picture of the set
    says TEXT NOT NULL,                  -- what is wrong, and what to do
    noticed_at REAL NOT NULL,
    PRIMARY KEY(set_id, name)
);
CREATE INDEX IF NOT EXISTS problems_of_picture ON picture_problems(picture_id);
CREATE INDEX IF NOT EXISTS pictures_by_hash ON pictures(set_id, sha256);
CREATE INDEX IF NOT EXISTS pictures_by_split ON pictures(set_id, split, id);
CREATE INDEX IF NOT EXISTS pictures_by_id ON pictures(set_id, id);
CREATE INDEX IF NOT EXISTS pictures_by_case ON pictures(set_id, name COLLATE NOCASE);
CREATE INDEX IF NOT EXISTS pictures_by_boxes ON pictures(set_id, boxes, id);
CREATE INDEX IF NOT EXISTS crops_by_item ON crops(set_id, state, category, item, label);
CREATE TABLE IF NOT EXISTS inbox_files(      -- of an inbox: uploads that were read
    set_id INTEGER NOT NULL REFERENCES sets(id) ON DELETE CASCADE,
    name TEXT NOT NULL,
    stamp TEXT NOT NULL,                 -- size and time of change: another upload of this name is read again
    PRIMARY KEY(set_id, name)
);
CREATE TABLE IF NOT EXISTS set_counts(       -- kept by the triggers below, whoever writes; pages read it at once
    set_id INTEGER NOT NULL,
    what TEXT NOT NULL,                  -- `crops open`, `boxes none`, `split train`, ...
    count INTEGER NOT NULL,
    PRIMARY KEY(set_id, what)
) WITHOUT ROWID;
CREATE TRIGGER IF NOT EXISTS count_added_crop AFTER INSERT ON crops BEGIN
    INSERT INTO set_counts(set_id, what, count) VALUES (new.set_id, 'crops ' || new.state, 1)
        ON CONFLICT(set_id, what) DO UPDATE SET count = count + 1;
END;
CREATE TRIGGER IF NOT EXISTS count_deleted_crop AFTER DELETE ON crops BEGIN
    INSERT INTO set_counts(set_id, what, count) VALUES (old.set_id, 'crops ' || old.state, -1)
        ON CONFLICT(set_id, what) DO UPDATE SET count = count + -1;
END;
CREATE TRIGGER IF NOT EXISTS count_decided_crop AFTER UPDATE OF state ON crops BEGIN
    INSERT INTO set_counts(set_id, what, count) VALUES (old.set_id, 'crops ' || old.state, -1)
        ON CONFLICT(set_id, what) DO UPDATE SET count = count + -1;
    INSERT INTO set_counts(set_id, what, count) VALUES (new.set_id, 'crops ' || new.state, 1)
        ON CONFLICT(set_id, what) DO UPDATE SET count = count + 1;
END;
CREATE TRIGGER IF NOT EXISTS count_added_picture AFTER INSERT ON pictures BEGIN
    INSERT INTO set_counts(set_id, what, count) VALUES (new.set_id, 'boxes ' || new.boxes, 1)
        ON CONFLICT(set_id, what) DO UPDATE SET count = count + 1;
    INSERT INTO set_counts(set_id, what, count) VALUES (new.set_id, 'split ' || new.split, 1)
        ON CONFLICT(set_id, what) DO UPDATE SET count = count + 1;
END;
CREATE TRIGGER IF NOT EXISTS count_deleted_picture AFTER DELETE ON pictures BEGIN
    INSERT INTO set_counts(set_id, what, count) VALUES (old.set_id, 'boxes ' || old.boxes, -1)
        ON CONFLICT(set_id, what) DO UPDATE SET count = count + -1;
    INSERT INTO set_counts(set_id, what, count) VALUES (old.set_id, 'split ' || old.split, -1)
        ON CONFLICT(set_id, what) DO UPDATE SET count = count + -1;
END;
CREATE TRIGGER IF NOT EXISTS count_boxed_picture AFTER UPDATE OF boxes ON pictures BEGIN
    INSERT INTO set_counts(set_id, what, count) VALUES (old.set_id, 'boxes ' || old.boxes, -1)
        ON CONFLICT(set_id, what) DO UPDATE SET count = count + -1;
    INSERT INTO set_counts(set_id, what, count) VALUES (new.set_id, 'boxes ' || new.boxes, 1)
        ON CONFLICT(set_id, what) DO UPDATE SET count = count + 1;
END;
CREATE TRIGGER IF NOT EXISTS count_split_picture AFTER UPDATE OF split ON pictures BEGIN
    INSERT INTO set_counts(set_id, what, count) VALUES (old.set_id, 'split ' || old.split, -1)
        ON CONFLICT(set_id, what) DO UPDATE SET count = count + -1;
    INSERT INTO set_counts(set_id, what, count) VALUES (new.set_id, 'split ' || new.split, 1)
        ON CONFLICT(set_id, what) DO UPDATE SET count = count + 1;
END;
-- counted again at every start
DELETE FROM set_counts;
INSERT INTO set_counts(set_id, what, count)
    SELECT set_id, 'crops ' || state, count(*) FROM crops GROUP BY set_id, state;
INSERT INTO set_counts(set_id, what, count)
    SELECT set_id, 'boxes ' || boxes, count(*) FROM pictures GROUP BY set_id, boxes;
INSERT INTO set_counts(set_id, what, count)
    SELECT set_id, 'split ' || split, count(*) FROM pictures GROUP BY set_id, split;
CREATE INDEX IF NOT EXISTS pictures_by_both ON pictures(set_id, boxes, split, id);
"""
