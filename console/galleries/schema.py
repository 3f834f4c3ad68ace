"""The tables of galleries: an index of what the repository has, and the changes that wait to be published.

The index may be lost: it is read from the repository again. Drafts may not.
"""

TABLES = """
CREATE TABLE IF NOT EXISTS gallery_stores(  -- a category in one embedding space, as an edit finds it
    id INTEGER PRIMARY KEY,
    category TEXT NOT NULL,
    space_id TEXT NOT NULL,
    state TEXT NOT NULL,                 -- names the state of the log that was read
    path TEXT NOT NULL,                  -- of the store, absolute
    dim INTEGER NOT NULL,
    threshold REAL,                      -- least similarity of a match; NULL: the newest bundle has no embedder
    shown INTEGER NOT NULL,              -- 1: the space that the newest bundle searches, or else the newest one
    is_ready INTEGER NOT NULL DEFAULT 0,
    first_id INTEGER NOT NULL,           -- its items have the ids from here, in the order of their labels
    items INTEGER NOT NULL DEFAULT 0,
    vectors INTEGER NOT NULL DEFAULT 0,
    few INTEGER NOT NULL DEFAULT 0,      -- items with too few vectors
    faceless INTEGER NOT NULL DEFAULT 0, -- items without a thumbnail
    negative INTEGER NOT NULL DEFAULT 0,
    changed INTEGER NOT NULL DEFAULT 0,  -- gallery sequence of the newest change
    compared INTEGER NOT NULL DEFAULT 0  -- items whose look-alikes were looked for
);
CREATE TABLE IF NOT EXISTS gallery_items(
    id INTEGER PRIMARY KEY,
    store_id INTEGER NOT NULL,
    item TEXT NOT NULL,
    label TEXT NOT NULL,
    vectors INTEGER NOT NULL,
    negative INTEGER NOT NULL,
    thumbnail INTEGER NOT NULL,          -- 1: it has one
    changed INTEGER NOT NULL,            -- gallery sequence of its newest change that is known
    first_row INTEGER NOT NULL,          -- its vectors lie between these rows of the store
    last_row INTEGER NOT NULL
);
CREATE UNIQUE INDEX IF NOT EXISTS gallery_items_by_item ON gallery_items(store_id, item);
CREATE INDEX IF NOT EXISTS gallery_items_by_vectors ON gallery_items(store_id, vectors, id);
CREATE INDEX IF NOT EXISTS gallery_items_by_change ON gallery_items(store_id, changed DESC, id);
CREATE INDEX IF NOT EXISTS gallery_items_faceless ON gallery_items(store_id, id) WHERE thumbnail = 0;
CREATE INDEX IF NOT EXISTS gallery_items_negative ON gallery_items(store_id, id) WHERE negative = 1;
CREATE VIRTUAL TABLE IF NOT EXISTS gallery_text USING fts5(
    item, label, tokenize='trigram'
);
CREATE TABLE IF NOT EXISTS gallery_letters(
    store_id INTEGER NOT NULL,
    first_id INTEGER NOT NULL,           -- of the items whose labels begin with it
    letter TEXT NOT NULL,
    PRIMARY KEY(store_id, first_id)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS gallery_pairs(  -- items that look alike
    store_id INTEGER NOT NULL,
    similarity REAL NOT NULL,
    one INTEGER NOT NULL,                -- ids of gallery_items
    other INTEGER NOT NULL,
    PRIMARY KEY(store_id, similarity DESC, one, other)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS gallery_segments(  -- that were read
    category TEXT NOT NULL, space_id TEXT NOT NULL, sequence INTEGER NOT NULL, sha256 TEXT NOT NULL,
    PRIMARY KEY(category, space_id, sequence)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS gallery_changes(  -- the records of the segments
    category TEXT NOT NULL, space_id TEXT NOT NULL, item TEXT NOT NULL, sequence INTEGER NOT NULL,
    label TEXT,                          -- NULL: the item was deleted
    vectors INTEGER, negative INTEGER,
    urgent INTEGER NOT NULL,
    PRIMARY KEY(category, item, space_id, sequence)
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS gallery_changes_urgent ON gallery_changes(category, item) WHERE urgent = 1;
CREATE TABLE IF NOT EXISTS gallery_releases(gallery INTEGER PRIMARY KEY, release INTEGER NOT NULL, at REAL);
CREATE TABLE IF NOT EXISTS gallery_index(version TEXT NOT NULL, repository TEXT NOT NULL);  -- one row: what was read

CREATE TABLE IF NOT EXISTS gallery_drafts(
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    at REAL NOT NULL,
    by TEXT NOT NULL,
    kind TEXT NOT NULL,
    category TEXT NOT NULL,
    item TEXT NOT NULL,
    arguments TEXT NOT NULL,             -- JSON object
    state TEXT NOT NULL DEFAULT 'open' CHECK(state IN ('open', 'waiting', 'published', 'withdrawn')),
    says TEXT NOT NULL DEFAULT '',       -- what it does, in words
    also TEXT,                           -- id of another item that it changes
    release INTEGER,                     -- that has it
    gallery INTEGER,
    file TEXT,                           -- the draft that waits for signatures
    release_at TEXT,                     -- when that release was made, as it says
    space_id TEXT,                       -- of its vectors
    vectors BLOB,                        -- of its pictures, float32; NULL: not yet embedded
    silhouettes BLOB,
    thumbnail BLOB,
    warnings TEXT NOT NULL DEFAULT '[]', -- JSON list of sentences
    problem TEXT NOT NULL DEFAULT ''     -- why its pictures cannot be used
);
CREATE INDEX IF NOT EXISTS gallery_drafts_state ON gallery_drafts(state, id);
CREATE INDEX IF NOT EXISTS gallery_drafts_item ON gallery_drafts(category, item, id);
CREATE INDEX IF NOT EXISTS gallery_drafts_also ON gallery_drafts(category, also) WHERE also IS NOT NULL;
CREATE TABLE IF NOT EXISTS gallery_pictures(  -- pictures of drafts; a gallery itself keeps none
    id INTEGER PRIMARY KEY,
    draft_id INTEGER NOT NULL REFERENCES gallery_drafts(id),
    number INTEGER NOT NULL,
    crop_id INTEGER,                     -- the crop that it was cut from
    path TEXT,                           -- of the picture below the console's data; NULL: not yet cut, or erased
    name TEXT NOT NULL DEFAULT '',
    UNIQUE(draft_id, number)
);
CREATE TABLE IF NOT EXISTS gallery_origins(  -- which picture a vector is of
    vector TEXT NOT NULL, picture_id INTEGER NOT NULL, PRIMARY KEY(vector, picture_id)
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS gallery_origins_picture ON gallery_origins(picture_id);
"""
