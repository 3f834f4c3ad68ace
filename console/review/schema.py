"""The tables of the review, and the triggers that keep what belongs to a crop true when other rooms edit it.

Rules the triggers keep:
1. An open crop is folded onto an open crop, or onto none: nothing open is ever hidden for good.
2. What was noted of the pixels of a box is forgotten when it moves; whoever decides by the old ones gets a conflict.
3. Whoever changes a decision, the cached neighbours of its set are read again.
"""

TABLES = """
CREATE TABLE IF NOT EXISTS review_log(
    id INTEGER PRIMARY KEY,
    decision TEXT NOT NULL,              -- id made by the client; one decision may name many crops
    set_id INTEGER NOT NULL REFERENCES sets(id) ON DELETE CASCADE,
    crop_id INTEGER NOT NULL,
    at REAL NOT NULL,
    by TEXT NOT NULL,
    kind TEXT NOT NULL CHECK(kind IN ('decide', 'accept', 'undo')),
    before TEXT NOT NULL,                -- JSON: state, category, item, label, decided_by, decided_at
    after TEXT NOT NULL,
    version INTEGER NOT NULL,            -- of the crop, after it
    undone_by INTEGER,                   -- id of the row that took it back
    UNIQUE(decision, crop_id)
);
CREATE INDEX IF NOT EXISTS review_log_of_set ON review_log(set_id, id);
CREATE TABLE IF NOT EXISTS review_marks(
    crop_id INTEGER PRIMARY KEY REFERENCES crops(id) ON DELETE CASCADE,
    hash TEXT NOT NULL DEFAULT '',       -- difference hash of its pixels, 16 hexadecimal digits
    hits TEXT NOT NULL DEFAULT '[]',     -- JSON: the gallery's own proposals
    margin REAL NOT NULL DEFAULT 0,      -- similarity of the best proposal less that of the second
    apart INTEGER NOT NULL DEFAULT 0,    -- a person unfolded it: it is not folded again
    sent_version INTEGER                 -- version of the decision that went into a gallery's draft
);
CREATE TABLE IF NOT EXISTS review_changes(
    set_id INTEGER PRIMARY KEY REFERENCES sets(id) ON DELETE CASCADE,
    decisions INTEGER NOT NULL DEFAULT 0, -- counts changes of decisions
    boxes INTEGER NOT NULL DEFAULT 0,     -- counts changes of boxes
    ranked INTEGER NOT NULL DEFAULT 0     -- `decisions` when all open crops were ranked the last time
);
CREATE TABLE IF NOT EXISTS review_samples(
    id INTEGER PRIMARY KEY,
    set_id INTEGER NOT NULL REFERENCES sets(id) ON DELETE CASCADE,
    at REAL NOT NULL,
    by TEXT NOT NULL,
    similarity REAL NOT NULL,            -- the least that is accepted
    margin REAL NOT NULL,
    seed INTEGER NOT NULL,
    crops TEXT NOT NULL,                 -- JSON: all that would be accepted: id, version, category, item, label
    sample TEXT NOT NULL,                -- JSON: ids of those to look at
    accepted_at REAL
);
CREATE INDEX IF NOT EXISTS crops_by_picture ON crops(set_id, state, picture_id);
CREATE INDEX IF NOT EXISTS crops_of_fold ON crops(set_id, fold, state) WHERE fold IS NOT NULL;
CREATE INDEX IF NOT EXISTS crops_decided ON crops(set_id, category, item, label, id) WHERE state = 'item';
CREATE INDEX IF NOT EXISTS crops_waiting ON crops(set_id, category, item, version, id) WHERE state = 'item';
CREATE INDEX IF NOT EXISTS crops_not_looked_at ON crops(set_id, picture_id, id) WHERE proposals IS NULL;
CREATE TRIGGER IF NOT EXISTS review_crop_deleted AFTER DELETE ON crops BEGIN
    UPDATE crops SET fold = NULL WHERE set_id = OLD.set_id AND fold = OLD.id;
    UPDATE review_changes SET decisions = decisions + 1, boxes = boxes + 1 WHERE set_id = OLD.set_id;
END;
CREATE TRIGGER IF NOT EXISTS review_crop_decided AFTER UPDATE OF state ON crops
WHEN OLD.state = 'open' AND NEW.state != 'open' BEGIN
    UPDATE crops SET fold = NULL WHERE set_id = NEW.set_id AND fold = NEW.id AND state = 'open';
END;
CREATE TRIGGER IF NOT EXISTS review_crop_reopened AFTER UPDATE OF state ON crops
WHEN OLD.state != 'open' AND NEW.state = 'open' AND NEW.fold IS NOT NULL
    AND (SELECT state FROM crops WHERE id = NEW.fold) IS NOT 'open' BEGIN
    UPDATE crops SET fold = NULL WHERE id = NEW.id;
END;
CREATE TRIGGER IF NOT EXISTS review_decision_changed AFTER UPDATE OF state, category, item, label ON crops
WHEN OLD.state = 'item' OR NEW.state = 'item' BEGIN
    INSERT INTO review_changes(set_id, decisions) VALUES (NEW.set_id, 1)
        ON CONFLICT(set_id) DO UPDATE SET decisions = decisions + 1;
END;
CREATE TRIGGER IF NOT EXISTS review_decision_added AFTER INSERT ON crops WHEN NEW.state = 'item' BEGIN
    INSERT INTO review_changes(set_id, decisions) VALUES (NEW.set_id, 1)
        ON CONFLICT(set_id) DO UPDATE SET decisions = decisions + 1;
END;
CREATE TRIGGER IF NOT EXISTS review_box_moved AFTER UPDATE OF x0, y0, x1, y1 ON crops
WHEN OLD.x0 != NEW.x0 OR OLD.y0 != NEW.y0 OR OLD.x1 != NEW.x1 OR OLD.y1 != NEW.y1 BEGIN
    DELETE FROM review_marks WHERE crop_id = NEW.id;
    UPDATE crops SET version = version + 1 WHERE id = NEW.id AND state = 'open';
    INSERT INTO review_changes(set_id, decisions, boxes) VALUES (NEW.set_id, 1, 1)
        ON CONFLICT(set_id) DO UPDATE SET decisions = decisions + 1, boxes = boxes + 1;
END;
"""
