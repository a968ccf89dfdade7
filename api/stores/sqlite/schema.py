"""Tables of the SQLite ledger, as migrations: a file written by an older version is brought up to date when opened.

decisions, outcomes, settlements, events, releases and specs are append-only. pending, beliefs, versions, links, owners,
journeys, credits and uncredited are derived from them; letters are what webhooks could not deliver.
NaN would be stored as NULL; NOT NULL refuses it.
"""

from sqlite_utils import Database
from sqlite_utils.migrations import Migrations

migrations = Migrations("journey_bandit_ledger")

_TABLES = (
    "CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) STRICT",
    """CREATE TABLE specs (
        key INTEGER PRIMARY KEY, digest TEXT NOT NULL UNIQUE, stage TEXT NOT NULL, body TEXT NOT NULL) STRICT""",
    """CREATE TABLE decisions (
        seq INTEGER PRIMARY KEY, spec INTEGER NOT NULL REFERENCES specs (key), id BLOB NOT NULL UNIQUE,
        at INTEGER NOT NULL, expires INTEGER NOT NULL, stage TEXT NOT NULL, version INTEGER NOT NULL,
        user BLOB NOT NULL, request BLOB NOT NULL, x BLOB NOT NULL, propensity BLOB NOT NULL,
        mean BLOB NOT NULL, sd BLOB NOT NULL, u REAL NOT NULL CHECK (u >= 0 AND u < 1), arm TEXT NOT NULL,
        holdout INTEGER NOT NULL CHECK (holdout IN (0, 1)), excluded TEXT NOT NULL, evidence TEXT NOT NULL,
        notes TEXT NOT NULL) STRICT""",
    """CREATE TABLE outcomes (
        seq INTEGER PRIMARY KEY, decision BLOB NOT NULL, id TEXT NOT NULL,
        kind TEXT NOT NULL CHECK (kind IN ('reward', 'activation', 'retraction')), value REAL,
        occurred INTEGER NOT NULL, received INTEGER NOT NULL, late INTEGER NOT NULL CHECK (late IN (0, 1)),
        CHECK (kind <> 'reward' OR value IS NOT NULL), UNIQUE (decision, id)) STRICT""",
    """CREATE TABLE settlements (
        seq INTEGER PRIMARY KEY, decision_seq INTEGER NOT NULL UNIQUE REFERENCES decisions (seq),
        stage TEXT NOT NULL, arm TEXT NOT NULL, at INTEGER NOT NULL, reward REAL NOT NULL, why TEXT NOT NULL,
        learned INTEGER NOT NULL CHECK (learned IN (0, 1)), tau REAL NOT NULL, nu REAL NOT NULL) STRICT""",
    "CREATE INDEX settlements_stage ON settlements (stage, seq)",
    "CREATE TABLE pending (decision_seq INTEGER PRIMARY KEY, due INTEGER NOT NULL) STRICT",
    "CREATE INDEX pending_due ON pending (due)",
    """CREATE TABLE beliefs (
        stage TEXT NOT NULL, arm TEXT NOT NULL, count REAL NOT NULL, reward REAL NOT NULL, square REAL NOT NULL,
        precision BLOB NOT NULL, shift BLOB NOT NULL, PRIMARY KEY (stage, arm)) STRICT, WITHOUT ROWID""",
    "CREATE TABLE versions (stage TEXT PRIMARY KEY, version INTEGER NOT NULL) STRICT",
)


@migrations()
def ledger(db: Database) -> None:
    """The first version."""
    for table in _TABLES:
        db.conn.execute(table)


@migrations()
def basis(db: Database) -> None:
    """What decisions took from those that were still open."""
    for column in ("basis_at", "basis_decisions", "basis_outcomes"):
        db.conn.execute(f"ALTER TABLE decisions ADD COLUMN {column} INTEGER NOT NULL DEFAULT 0")


_EVENTS = (
    "ALTER TABLE decisions ADD COLUMN moment TEXT NOT NULL DEFAULT ''",
    "CREATE INDEX decisions_user ON decisions (user)",
    """CREATE TABLE events (
        seq INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE, user BLOB NOT NULL, alias BLOB, at INTEGER NOT NULL,
        received INTEGER NOT NULL, name TEXT NOT NULL, properties TEXT NOT NULL,
        reports INTEGER NOT NULL CHECK (reports IN (0, 1))) STRICT""",
    "CREATE INDEX events_user ON events (user)",
    "CREATE INDEX events_reports ON events (user) WHERE reports = 1",
    """CREATE TABLE links (
        alias BLOB NOT NULL, owner BLOB NOT NULL, at INTEGER NOT NULL, event TEXT NOT NULL,
        PRIMARY KEY (alias, owner)) STRICT, WITHOUT ROWID""",
    "CREATE TABLE owners (alias BLOB PRIMARY KEY, owner BLOB NOT NULL) STRICT, WITHOUT ROWID",
    "CREATE INDEX owners_owner ON owners (owner)",
    "CREATE TABLE journeys (user BLOB PRIMARY KEY, state BLOB NOT NULL) STRICT, WITHOUT ROWID",
    """CREATE TABLE credits (
        event TEXT NOT NULL, stage TEXT NOT NULL, decision BLOB NOT NULL,
        PRIMARY KEY (event, stage)) STRICT, WITHOUT ROWID""",
)


@migrations()
def events(db: Database) -> None:
    """Events, journeys and what events report."""
    for statement in _EVENTS:
        db.conn.execute(statement)


_OFFERED = (
    "ALTER TABLE decisions ADD COLUMN deferred INTEGER NOT NULL DEFAULT 0 CHECK (deferred IN (0, 1))",
    "ALTER TABLE decisions ADD COLUMN actions TEXT NOT NULL DEFAULT ''",
    "ALTER TABLE decisions ADD COLUMN phi BLOB NOT NULL DEFAULT x''",
)


@migrations()
def offered(db: Database) -> None:
    """Decisions that wait for their activation, and actions that came with a request."""
    for statement in _OFFERED:
        db.conn.execute(statement)


@migrations()
def letters(db: Database) -> None:
    """Messages that webhooks could not deliver."""
    db.conn.execute(
        """CREATE TABLE letters (
            endpoint TEXT NOT NULL, event TEXT NOT NULL, body BLOB NOT NULL, attempts INTEGER NOT NULL,
            due INTEGER NOT NULL, error TEXT NOT NULL, dead INTEGER NOT NULL CHECK (dead IN (0, 1)),
            at INTEGER NOT NULL, PRIMARY KEY (endpoint, event)) STRICT, WITHOUT ROWID"""
    )
    db.conn.execute("CREATE INDEX letters_due ON letters (dead, endpoint, due)")


@migrations()
def releases(db: Database) -> None:
    """Approved snapshots, and which of them made a decision."""
    db.conn.execute("ALTER TABLE decisions ADD COLUMN release INTEGER NOT NULL DEFAULT 0")
    db.conn.execute("""CREATE TABLE releases (
        seq INTEGER PRIMARY KEY, stage TEXT NOT NULL, model TEXT NOT NULL, version TEXT NOT NULL, sha256 TEXT NOT NULL,
        belief_sha256 TEXT NOT NULL, approved_by TEXT NOT NULL, approved_at INTEGER NOT NULL, reason TEXT NOT NULL,
        at INTEGER NOT NULL, policy BLOB NOT NULL, posterior BLOB NOT NULL) STRICT""")


_FACTS = (
    "ALTER TABLE decisions ADD COLUMN unit BLOB NOT NULL DEFAULT x''",
    "ALTER TABLE outcomes ADD COLUMN fact TEXT NOT NULL DEFAULT ''",
    "ALTER TABLE outcomes ADD COLUMN voids TEXT NOT NULL DEFAULT ''",
    "ALTER TABLE credits ADD COLUMN outcome TEXT NOT NULL DEFAULT ''",
    "ALTER TABLE credits ADD COLUMN fact TEXT NOT NULL DEFAULT ''",
    "ALTER TABLE credits ADD COLUMN changes INTEGER NOT NULL DEFAULT 0",
    "UPDATE credits SET outcome = 'event:' || event",
    """CREATE TABLE uncredited (
        event TEXT NOT NULL, stage TEXT NOT NULL, kind TEXT NOT NULL, reason TEXT NOT NULL, why TEXT NOT NULL,
        at INTEGER NOT NULL, PRIMARY KEY (event, stage)) STRICT, WITHOUT ROWID""",
    "CREATE INDEX uncredited_at ON uncredited (at)",
)


@migrations()
def facts(db: Database) -> None:
    """What people's groups are drawn from, what outcomes are about, and reports that are credited to no decision."""
    for statement in _FACTS:
        db.conn.execute(statement)


@migrations()
def kinds_of_release(db: Database) -> None:
    """Whether a release was approved or gone back to."""
    db.conn.execute("ALTER TABLE releases ADD COLUMN kind TEXT NOT NULL DEFAULT ''")
