"""The schema of the SQLite store's file, version by version."""

from __future__ import annotations

import sqlite3
from pathlib import Path

from lastcall_once.store import StoreError

# What leads from each version of the schema, which `PRAGMA user_version` counts, to the next; the first makes it from
# nothing. Never change one that was released. Text is compared bytewise, which is the order of Python's strings.
MIGRATIONS: tuple[tuple[str, ...], ...] = (
    (
        """CREATE TABLE once_records (
            key TEXT NOT NULL PRIMARY KEY, state TEXT NOT NULL, token TEXT NOT NULL, worker TEXT NOT NULL,
            first_seen_at REAL NOT NULL, updated_at REAL NOT NULL, lease_until REAL NOT NULL, expires_at REAL NOT NULL,
            attempts INTEGER NOT NULL, executions INTEGER NOT NULL, fingerprint TEXT NOT NULL, meta TEXT NOT NULL
        ) WITHOUT ROWID""",
        "CREATE INDEX once_records_expires_at ON once_records (expires_at)",
        "CREATE TABLE once_results (key TEXT NOT NULL PRIMARY KEY, result BLOB NOT NULL)",
    ),
    # Tables of the document store. Documents and entries may be large, so these have rowids: their indexes stay small.
    (
        """CREATE TABLE once_documents (
            collection TEXT NOT NULL, name TEXT NOT NULL, data TEXT NOT NULL, version INTEGER NOT NULL,
            updated_at REAL NOT NULL, PRIMARY KEY (collection, name)
        )""",
        """CREATE TABLE once_entries (
            stream TEXT NOT NULL, number INTEGER NOT NULL, at REAL NOT NULL, data TEXT NOT NULL,
            PRIMARY KEY (stream, number)
        )""",
        """CREATE TABLE once_counters (
            counter TEXT NOT NULL PRIMARY KEY, value INTEGER NOT NULL, expires_at REAL NOT NULL
        ) WITHOUT ROWID""",
        "CREATE INDEX once_counters_expires_at ON once_counters (expires_at)",
    ),
)


def migrate(connection: sqlite3.Connection, path: Path) -> None:
    """Bring the file up to date, in one transaction, which also finds out whether it can be written.

    Raises StoreError for the file of something else, and for a schema newer than this release's.
    """
    connection.execute("BEGIN IMMEDIATE")
    version = connection.execute("PRAGMA user_version").fetchone()[0]
    tables = {name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
    if tables if version == 0 else "once_records" not in tables:
        raise StoreError(f"{path} is the database of something else: give once a file of its own")
    if version > len(MIGRATIONS):
        raise StoreError(
            f"{path} has schema {version}, and this release of lastcall knows none newer than "
            f"{len(MIGRATIONS)}: upgrade lastcall in every process that uses it"
        )
    for statements in MIGRATIONS[version:]:
        for statement in statements:
            connection.execute(statement)
    connection.execute(f"PRAGMA user_version = {len(MIGRATIONS)}")
    connection.execute("COMMIT")
