"""The table of jobs. A job is a row as long as its folder is there."""

TABLES = """
CREATE TABLE IF NOT EXISTS jobs(
    id INTEGER PRIMARY KEY AUTOINCREMENT, -- never used again: it names a folder
    kind TEXT NOT NULL,                   -- learn, recipe, evaluate, pack, publish, ...
    name TEXT NOT NULL,
    argv TEXT NOT NULL,                   -- JSON list
    folder TEXT NOT NULL,                 -- absolute; the command runs in it
    heavy INTEGER NOT NULL,               -- 1: waits for other heavy jobs
    state TEXT NOT NULL CHECK(state IN ('queued', 'running', 'done', 'failed', 'stopped', 'interrupted')),
    by TEXT NOT NULL,
    about TEXT NOT NULL DEFAULT '{}',     -- JSON object of whoever started it
    created_at REAL NOT NULL,             -- Unix time, seconds
    started_at REAL,                      -- of the last attempt
    ended_at REAL,
    stop_at REAL,                         -- when somebody stopped it
    exit_code INTEGER,                    -- -9: ended by signal 9
    says TEXT NOT NULL DEFAULT '',
    bytes INTEGER,                        -- of its folder, when it ended
    acted INTEGER NOT NULL DEFAULT 0      -- 1: what follows a job that is done was called
);
CREATE INDEX IF NOT EXISTS jobs_by_state ON jobs(state, id);
-- what there is to learn from is counted without reading the crops: 100,000 in 0.1 s
CREATE INDEX IF NOT EXISTS crops_to_learn ON crops(set_id, state, category, item, picture_id);
"""
