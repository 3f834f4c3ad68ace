"""The tables of users, their sessions and their tokens. Secrets are stored as hashes alone."""

TABLES = """
CREATE TABLE IF NOT EXISTS users(
    id INTEGER PRIMARY KEY AUTOINCREMENT, -- never used twice: a new user of an old name is another one
    name TEXT NOT NULL UNIQUE COLLATE NOCASE,
    role TEXT NOT NULL CHECK(role IN ('viewer', 'labeller', 'operator', 'admin')),
    password TEXT NOT NULL,               -- argon2
    created_at REAL NOT NULL,             -- Unix time, seconds; so in all tables
    created_by TEXT NOT NULL,
    password_at REAL NOT NULL
);
CREATE TABLE IF NOT EXISTS sessions(
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    hash TEXT NOT NULL UNIQUE,            -- SHA-256 of the cookie
    user_id INTEGER REFERENCES users(id) ON DELETE CASCADE, -- NULL: the printed token opened it
    created_at REAL NOT NULL,
    seen_at REAL NOT NULL,                -- of a request, to a few minutes
    address TEXT NOT NULL,                -- of the client, when it logged in
    agent TEXT NOT NULL                   -- its browser, as it says
);
CREATE INDEX IF NOT EXISTS sessions_of_user ON sessions(user_id);
CREATE TABLE IF NOT EXISTS tokens(
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    hash TEXT NOT NULL UNIQUE,            -- SHA-256 of the token
    user_id INTEGER NOT NULL REFERENCES users(id) ON DELETE CASCADE,
    name TEXT NOT NULL,                   -- what it is for
    role TEXT NOT NULL CHECK(role IN ('viewer', 'labeller', 'operator', 'admin')),
    created_at REAL NOT NULL,
    expires_at REAL NOT NULL,
    used_at REAL,                         -- to a few minutes; NULL: never
    UNIQUE(user_id, name)
);
"""
