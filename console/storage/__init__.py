"""Keeps the console's database: one SQLite file, one writer, many readers."""
