"""Tables of a SQL ledger, as migrations: a ledger written by an older version is brought up to date when opened.
Migrations are appended and never changed. Both engines run the same ones.

decisions, outcomes, settlements, events, releases, specs, erasures, seals, withdrawals and acknowledgements are
append-only; commits says which rows of them were committed together, and their digests. Only an erasure overwrites
rows; seals then has their digests.
erasing has what an erasure that goes on is about. Derived are pending, versions, links, owners, journeys, credits,
uncredited, and what was learned: statistics, drift_sums, drift_alarms, answer_delays (counted for the stages of
delay_counts), exposures, exposure_effects, nudge_sums, nudge_days and reward_watches. uncorrected has settled decisions
about which something was reported that their next settlement takes in. served_stages, declaration_eras, schema_starts
and arithmetics say what was served when; warm_starts and warm_sums what a stage began with; webhook_cursors,
webhook_alarm_cursors and webhook_deliveries what endpoints were told; ledger_owner who writes. meta holds facts about
the ledger itself. NaN would be stored as NULL; NOT NULL refuses it.
"""

import json
import sqlite3
from collections.abc import Callable
from contextlib import closing
from typing import Protocol

from sqlite_utils.migrations import Migrations

from api.stores.sql.connection import SqlConnection
from api.stores.sql.rows.commits import CommitChain

migrations = Migrations("journey_bandit_ledger")
"""The migrations as sqlite-utils applies them."""


class SqlDatabase(Protocol):
    """Database that a migration changes, in a transaction of the caller."""

    @property
    def conn(self) -> SqlConnection:
        """The connection that writes."""
        ...


class _Memory:
    """Database of a process, to read there what tables a ledger has."""

    def __init__(self) -> None:
        self.conn = sqlite3.connect(":memory:")


Migration = Callable[[SqlDatabase], None]
MIGRATIONS = list[Migration]()
"""The migrations in order."""


def migration(change: Migration) -> Migration:
    """Register a migration after those before it."""
    MIGRATIONS.append(change)
    migrations()(change)
    return change


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


@migration
def ledger(db: SqlDatabase) -> None:
    """Migration 1: the tables of the first version (specs, decisions, outcomes, settlements, sums, pending, versions,
    meta).
    """
    for table in _TABLES:
        db.conn.execute(table)


@migration
def basis(db: SqlDatabase) -> None:
    """Migration 2: columns that say what decisions took from those that were still open."""
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


@migration
def events(db: SqlDatabase) -> None:
    """Migration 3: tables of events, links, owners, journeys and credits, and the moment of a decision."""
    for statement in _EVENTS:
        db.conn.execute(statement)


_OFFERED = (
    "ALTER TABLE decisions ADD COLUMN deferred INTEGER NOT NULL DEFAULT 0 CHECK (deferred IN (0, 1))",
    "ALTER TABLE decisions ADD COLUMN actions TEXT NOT NULL DEFAULT ''",
    "ALTER TABLE decisions ADD COLUMN phi BLOB NOT NULL DEFAULT x''",
)


@migration
def offered(db: SqlDatabase) -> None:
    """Migration 4: columns for decisions that wait for their activation, and for actions that came with a request."""
    for statement in _OFFERED:
        db.conn.execute(statement)


@migration
def letters(db: SqlDatabase) -> None:
    """Migration 5: table of messages that webhooks could not deliver."""
    db.conn.execute(
        """CREATE TABLE letters (
            endpoint TEXT NOT NULL, event TEXT NOT NULL, body BLOB NOT NULL, attempts INTEGER NOT NULL,
            due INTEGER NOT NULL, error TEXT NOT NULL, dead INTEGER NOT NULL CHECK (dead IN (0, 1)),
            at INTEGER NOT NULL, PRIMARY KEY (endpoint, event)) STRICT, WITHOUT ROWID"""
    )
    db.conn.execute("CREATE INDEX letters_due ON letters (dead, endpoint, due)")


@migration
def releases(db: SqlDatabase) -> None:
    """Migration 6: table of approved snapshots, and a column that says which of them made a decision."""
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


@migration
def facts(db: SqlDatabase) -> None:
    """Migration 7: what people's groups are drawn from, what outcomes are about, and reports that are credited to no
    decision.
    """
    for statement in _FACTS:
        db.conn.execute(statement)


@migration
def kinds_of_release(db: SqlDatabase) -> None:
    """Migration 8: column that says whether a release was approved or gone back to."""
    db.conn.execute("ALTER TABLE releases ADD COLUMN kind TEXT NOT NULL DEFAULT ''")


_TYPED_STATE = (
    """CREATE TABLE statistics (
        stage TEXT NOT NULL, schema INTEGER NOT NULL, epoch INTEGER NOT NULL, arm TEXT NOT NULL, count REAL NOT NULL,
        reward REAL NOT NULL, square REAL NOT NULL, precision BLOB NOT NULL, shift BLOB NOT NULL,
        PRIMARY KEY (stage, schema, epoch, arm)) STRICT, WITHOUT ROWID""",
    """CREATE TABLE drift_sums (
        stage TEXT NOT NULL, schema INTEGER NOT NULL, direction TEXT NOT NULL CHECK (direction IN ('up', 'down')),
        arm TEXT NOT NULL, value REAL NOT NULL, PRIMARY KEY (stage, schema, direction, arm)) STRICT, WITHOUT ROWID""",
    """CREATE TABLE drift_alarms (
        stage TEXT NOT NULL, schema INTEGER NOT NULL, number INTEGER NOT NULL, arm TEXT NOT NULL,
        direction TEXT NOT NULL CHECK (direction IN ('up', 'down')), through INTEGER NOT NULL, at INTEGER NOT NULL,
        PRIMARY KEY (stage, schema, number)) STRICT, WITHOUT ROWID""",
    """CREATE TABLE delay_counts (
        stage TEXT NOT NULL, schema INTEGER NOT NULL, PRIMARY KEY (stage, schema)) STRICT, WITHOUT ROWID""",
    """CREATE TABLE answer_delays (
        stage TEXT NOT NULL, schema INTEGER NOT NULL, arm TEXT NOT NULL, bucket INTEGER NOT NULL,
        answers INTEGER NOT NULL, PRIMARY KEY (stage, schema, arm, bucket)) STRICT, WITHOUT ROWID""",
    """CREATE TABLE warm_starts (
        stage TEXT NOT NULL, schema INTEGER NOT NULL, weight REAL NOT NULL, rows INTEGER NOT NULL, digest TEXT NOT NULL,
        since INTEGER NOT NULL, PRIMARY KEY (stage, schema)) STRICT, WITHOUT ROWID""",
    """CREATE TABLE warm_sums (
        stage TEXT NOT NULL, schema INTEGER NOT NULL, arm TEXT NOT NULL, count REAL NOT NULL, reward REAL NOT NULL,
        square REAL NOT NULL, precision BLOB NOT NULL, shift BLOB NOT NULL,
        PRIMARY KEY (stage, schema, arm)) STRICT, WITHOUT ROWID""",
    """CREATE TABLE served_stages (
        stage TEXT PRIMARY KEY, digest TEXT NOT NULL, learning_digest TEXT NOT NULL, schema INTEGER NOT NULL) STRICT""",
    """CREATE TABLE schema_starts (
        stage TEXT NOT NULL, schema INTEGER NOT NULL, after INTEGER NOT NULL,
        PRIMARY KEY (stage, schema)) STRICT, WITHOUT ROWID""",
    """CREATE TABLE declaration_eras (
        first INTEGER NOT NULL, stage TEXT NOT NULL, digest TEXT NOT NULL, UNIQUE (first, stage)) STRICT""",
    "CREATE TABLE arithmetics (first INTEGER PRIMARY KEY, number INTEGER NOT NULL) STRICT",
    """CREATE TABLE webhook_cursors (
        endpoint TEXT PRIMARY KEY, decision INTEGER NOT NULL, settlement INTEGER NOT NULL, era INTEGER NOT NULL,
        release INTEGER NOT NULL) STRICT, WITHOUT ROWID""",
    """CREATE TABLE webhook_alarm_cursors (
        endpoint TEXT NOT NULL, stage TEXT NOT NULL, alarms INTEGER NOT NULL,
        PRIMARY KEY (endpoint, stage)) STRICT, WITHOUT ROWID""",
    "DROP INDEX letters_due",
    "ALTER TABLE letters RENAME TO webhook_deliveries",
    "CREATE INDEX webhook_deliveries_due ON webhook_deliveries (dead, endpoint, due)",
)


@migration
def typed_state(db: SqlDatabase) -> None:
    """Migration 9: what was learned, served and told, in tables of its own. Before, it stood in meta under prefixes,
    and in beliefs under "stage", "stage#schema", "stage@epoch" and "stage@warm"; it is moved without loss.
    """
    for statement in _TYPED_STATE:
        db.conn.execute(statement)
    meta = dict(db.conn.execute("SELECT key, value FROM meta").fetchall())
    _move_statistics(db, meta)
    _move_declarations(db, meta)
    _move_cursors(db, meta)
    db.conn.execute("DROP TABLE beliefs")
    moved = ("watch", "delays", "warm", "since", "schema", "learning", "spec", "era", "arithmetic", "webhook")
    db.conn.executemany("DELETE FROM meta WHERE key = ?", [(k,) for k in meta if k.partition(":")[0] in moved])


@migration
def exposures(db: SqlDatabase) -> None:
    """Migration 10: what a stage's decisions exposed people to, for its loss account."""
    db.conn.execute(
        """CREATE TABLE exposures (
            stage TEXT NOT NULL, schema INTEGER NOT NULL, learning_digest TEXT NOT NULL, through INTEGER NOT NULL,
            decisions INTEGER NOT NULL, first INTEGER NOT NULL, nudges REAL NOT NULL, cost REAL NOT NULL,
            PRIMARY KEY (stage, schema)) STRICT, WITHOUT ROWID"""
    )
    db.conn.execute(
        """CREATE TABLE exposure_effects (
            stage TEXT NOT NULL, schema INTEGER NOT NULL, arm TEXT NOT NULL, effect BLOB NOT NULL,
            PRIMARY KEY (stage, schema, arm)) STRICT, WITHOUT ROWID"""
    )


@migration
def loss_accounts(db: SqlDatabase) -> None:
    """Migration 11: column with the loss account of the snapshot that made a decision."""
    db.conn.execute("ALTER TABLE decisions ADD COLUMN loss_account BLOB NOT NULL DEFAULT x''")


@migration
def nudge_sums(db: SqlDatabase) -> None:
    """Migration 12: sums from which the price of a nudge follows, and decisions by day."""
    db.conn.execute(
        """CREATE TABLE nudge_sums (
            stage TEXT NOT NULL, schema INTEGER NOT NULL, decisions INTEGER NOT NULL, people INTEGER NOT NULL,
            nudges INTEGER NOT NULL, opt_outs INTEGER NOT NULL, reward REAL NOT NULL, weight REAL NOT NULL,
            score REAL NOT NULL, instrument REAL NOT NULL, square REAL NOT NULL, visits REAL NOT NULL,
            after_opt_out REAL NOT NULL, usual REAL NOT NULL, month INTEGER NOT NULL,
            PRIMARY KEY (stage, schema)) STRICT, WITHOUT ROWID"""
    )
    db.conn.execute(
        """CREATE TABLE nudge_days (
            stage TEXT NOT NULL, schema INTEGER NOT NULL, day INTEGER NOT NULL, decisions INTEGER NOT NULL,
            opt_outs INTEGER NOT NULL, PRIMARY KEY (stage, schema, day)) STRICT, WITHOUT ROWID"""
    )


@migration
def judged_releases(db: SqlDatabase) -> None:
    """Migration 13: releases that are judged, with the number of decisions declared for that, and what the judged
    candidate would have drawn from at each decision.
    """
    db.conn.execute("ALTER TABLE releases ADD COLUMN judge INTEGER NOT NULL DEFAULT 0")
    db.conn.execute("ALTER TABLE releases ADD COLUMN decisions INTEGER NOT NULL DEFAULT 0")
    db.conn.execute("ALTER TABLE decisions ADD COLUMN candidate BLOB NOT NULL DEFAULT x''")


@migration
def exposure_days(db: SqlDatabase) -> None:
    """Migration 14: days on which a stage made decisions. Kept exposures do not say them: they are forgotten, and
    counted again from the decisions when the service starts.
    """
    db.conn.execute("ALTER TABLE exposures ADD COLUMN days BLOB NOT NULL DEFAULT x''")
    db.conn.execute("DELETE FROM exposures")
    db.conn.execute("DELETE FROM exposure_effects")


@migration
def sealed_commits(db: SqlDatabase) -> None:
    """Migration 15: commits with digests of their rows. What is there already is sealed as one."""
    db.conn.execute(
        """CREATE TABLE commits (
            seq INTEGER PRIMARY KEY, form INTEGER NOT NULL, decisions INTEGER NOT NULL, outcomes INTEGER NOT NULL,
            settlements INTEGER NOT NULL, events INTEGER NOT NULL, releases INTEGER NOT NULL, rows BLOB NOT NULL,
            chain BLOB NOT NULL) STRICT"""
    )
    CommitChain(15).seal(db.conn)


@migration
def contributions(db: SqlDatabase) -> None:
    """Migration 16: what a decision took of its user's contribution limit, and an index of those over it."""
    db.conn.execute("ALTER TABLE decisions ADD COLUMN contribution INTEGER NOT NULL DEFAULT 1")
    db.conn.execute("CREATE INDEX decisions_over_limit ON decisions (stage, at) WHERE contribution = 0")


@migration
def row_sums(db: SqlDatabase) -> None:
    """Migration 17: what the rows of changing tables add up to; `prepare` fills it after migrations."""
    db.conn.execute("CREATE TABLE row_sums (name TEXT PRIMARY KEY, sum BLOB NOT NULL) STRICT, WITHOUT ROWID")


@migration
def ledger_owner(db: SqlDatabase) -> None:
    """Migration 18: who writes the ledger, and a number that grows with each owner: what the row does not name commits
    nothing. Events of a user are found by their time, so that the newest are read alone.
    """
    for name, rest in (("events_user", ""), ("events_reports", " WHERE reports = 1")):
        db.conn.execute(f"DROP INDEX {name}")
        db.conn.execute(f"CREATE INDEX {name} ON events (user, at, id){rest}")
    db.conn.execute(
        """CREATE TABLE ledger_owner (
            only INTEGER PRIMARY KEY CHECK (only = 1), epoch INTEGER NOT NULL, process INTEGER NOT NULL,
            host TEXT NOT NULL, since TEXT NOT NULL) STRICT"""
    )


_ERASURES = (
    """CREATE TABLE erasures (
        seq INTEGER PRIMARY KEY, erasure BLOB NOT NULL, at INTEGER NOT NULL,
        forget INTEGER NOT NULL CHECK (forget IN (0, 1)), decisions INTEGER NOT NULL, outcomes INTEGER NOT NULL,
        events INTEGER NOT NULL, ids INTEGER NOT NULL, first INTEGER NOT NULL,
        done INTEGER NOT NULL CHECK (done IN (0, 1))) STRICT""",
    """CREATE TABLE seals (
        seq INTEGER PRIMARY KEY, part TEXT NOT NULL, first INTEGER NOT NULL, last INTEGER NOT NULL,
        form INTEGER NOT NULL, rows BLOB NOT NULL) STRICT""",
    "CREATE INDEX seals_first ON seals (part, first)",
    """CREATE TABLE erasing (
        user BLOB PRIMARY KEY, erasure BLOB NOT NULL, at INTEGER NOT NULL,
        forget INTEGER NOT NULL CHECK (forget IN (0, 1))) STRICT, WITHOUT ROWID""",
    "CREATE INDEX credits_decision ON credits (decision)",
    "ALTER TABLE commits ADD COLUMN erasures INTEGER NOT NULL DEFAULT 0",
    "ALTER TABLE commits ADD COLUMN seals INTEGER NOT NULL DEFAULT 0",
)


@migration
def erasures(db: SqlDatabase) -> None:
    """Migration 19: what was erased at persons' requests, without saying whose; the seals of commits whose rows were
    overwritten; and erasures that go on.
    """
    for statement in _ERASURES:
        db.conn.execute(statement)


@migration
def reporters(db: SqlDatabase) -> None:
    """Migration 20: which API key reported an outcome, or sent an event; not recorded of what is there."""
    for table in ("outcomes", "events"):
        db.conn.execute(f"ALTER TABLE {table} ADD COLUMN reporter TEXT NOT NULL DEFAULT ''")


_CORRECTIONS = (
    """CREATE TABLE settlements_21 (
        seq INTEGER PRIMARY KEY, decision_seq INTEGER NOT NULL REFERENCES decisions (seq),
        stage TEXT NOT NULL, arm TEXT NOT NULL, at INTEGER NOT NULL, reward REAL NOT NULL, why TEXT NOT NULL,
        learned INTEGER NOT NULL CHECK (learned IN (0, 1)), tau REAL NOT NULL, nu REAL NOT NULL,
        corrects INTEGER NOT NULL CHECK (corrects < seq), outcomes INTEGER NOT NULL) STRICT""",
    """INSERT INTO settlements_21
        SELECT s.*, 0, (SELECT count(*) FROM outcomes o WHERE o.decision = d.id)
        FROM settlements s JOIN decisions d ON d.seq = s.decision_seq ORDER BY s.seq""",
    "DROP TABLE settlements",
    "ALTER TABLE settlements_21 RENAME TO settlements",
    "CREATE INDEX settlements_stage ON settlements (stage, seq)",
    """CREATE UNIQUE INDEX settlements_decision ON settlements
        (decision_seq, (CASE WHEN corrects = 0 THEN 0 ELSE seq END))""",
    "ALTER TABLE outcomes ADD COLUMN withdrawal INTEGER NOT NULL DEFAULT 0",
    """CREATE TABLE withdrawals (
        seq INTEGER PRIMARY KEY, at INTEGER NOT NULL, who TEXT NOT NULL, reporter TEXT NOT NULL,
        since INTEGER NOT NULL, until INTEGER NOT NULL, reason TEXT NOT NULL) STRICT""",
    "ALTER TABLE commits ADD COLUMN withdrawals INTEGER NOT NULL DEFAULT 0",
    "CREATE TABLE uncorrected (decision_seq INTEGER PRIMARY KEY REFERENCES decisions (seq)) STRICT",
)


@migration
def corrections(db: SqlDatabase) -> None:
    """Migration 21: settlements that correct an earlier one of their decision, and how many of its outcomes each rests
    on: what is there rests on all that had come, of which late ones do not count. A decision is first settled once.
    Withdrawals void outcomes.
    """
    for statement in _CORRECTIONS:
        db.conn.execute(statement)


@migration
def reward_watches(db: SqlDatabase) -> None:
    """Migration 22: the watch over what keys report: baselines, evidence and alarms of a stage, in MessagePack."""
    db.conn.execute(
        """CREATE TABLE reward_watches (
            stage TEXT NOT NULL, schema INTEGER NOT NULL, state BLOB NOT NULL,
            PRIMARY KEY (stage, schema)) STRICT, WITHOUT ROWID"""
    )


_ACKNOWLEDGEMENTS = (
    """CREATE TABLE acknowledgements (
        seq INTEGER PRIMARY KEY, at INTEGER NOT NULL, who TEXT NOT NULL, stage TEXT NOT NULL, reporter TEXT NOT NULL,
        verdict TEXT NOT NULL CHECK (verdict IN ('honest', 'forged')), reason TEXT NOT NULL,
        through INTEGER NOT NULL) STRICT""",
    "ALTER TABLE commits ADD COLUMN acknowledgements INTEGER NOT NULL DEFAULT 0",
    "ALTER TABLE webhook_alarm_cursors ADD COLUMN reward_alarms INTEGER NOT NULL DEFAULT 0",
)


@migration
def acknowledgements(db: SqlDatabase) -> None:
    """Migration 23: what operators found out about keys that were accused, and how many alarms about keys each webhook
    endpoint was told of.
    """
    for statement in _ACKNOWLEDGEMENTS:
        db.conn.execute(statement)


_OPERATOR_ACTIONS = (
    """CREATE TABLE operator_actions (
        seq INTEGER PRIMARY KEY, at INTEGER NOT NULL, who TEXT NOT NULL, stage TEXT NOT NULL, nudge TEXT NOT NULL,
        verb TEXT NOT NULL CHECK (verb IN ('pause', 'resume', 'retire')), reason TEXT NOT NULL) STRICT""",
    "ALTER TABLE commits ADD COLUMN operator_actions INTEGER NOT NULL DEFAULT 0",
    "ALTER TABLE webhook_cursors ADD COLUMN operator_action INTEGER NOT NULL DEFAULT 0",
)


@migration
def operator_actions(db: SqlDatabase) -> None:
    """Migration 24: what operators did to nudges, and why; and which of that each webhook endpoint was told of."""
    for statement in _OPERATOR_ACTIONS:
        db.conn.execute(statement)


_TRAFFIC_SETTINGS = (
    "ALTER TABLE operator_actions RENAME TO operator_actions_24",
    """CREATE TABLE operator_actions (
        seq INTEGER PRIMARY KEY, at INTEGER NOT NULL, who TEXT NOT NULL, stage TEXT NOT NULL, nudge TEXT NOT NULL,
        verb TEXT NOT NULL CHECK (verb IN ('pause', 'resume', 'retire', 'ramp', 'holdout')), reason TEXT NOT NULL,
        share REAL) STRICT""",
    "INSERT INTO operator_actions SELECT *, NULL FROM operator_actions_24 ORDER BY seq",
    "DROP TABLE operator_actions_24",
    "ALTER TABLE outcomes RENAME TO outcomes_24",
    """CREATE TABLE outcomes (
        seq INTEGER PRIMARY KEY, decision BLOB NOT NULL, id TEXT NOT NULL,
        kind TEXT NOT NULL CHECK (kind IN ('reward', 'activation', 'retraction', 'opt_out')), value REAL,
        occurred INTEGER NOT NULL, received INTEGER NOT NULL, late INTEGER NOT NULL CHECK (late IN (0, 1)),
        fact TEXT NOT NULL DEFAULT '', voids TEXT NOT NULL DEFAULT '', reporter TEXT NOT NULL DEFAULT '',
        withdrawal INTEGER NOT NULL DEFAULT 0,
        CHECK (kind <> 'reward' OR value IS NOT NULL), UNIQUE (decision, id)) STRICT""",
    "INSERT INTO outcomes SELECT * FROM outcomes_24 ORDER BY seq",
    "DROP TABLE outcomes_24",
)


@migration
def traffic_settings(db: SqlDatabase) -> None:
    """Migration 25: operators set a stage's ramp and holdout, too; and people opt out of what they were shown."""
    for statement in _TRAFFIC_SETTINGS:
        db.conn.execute(statement)


def _key(name: str) -> tuple[str, int]:
    """Stage and schema of "stage" or "stage#schema"."""
    stage, _, schema = name.partition("#")
    return stage, int(schema or 1)


def _under(meta: dict[str, str], prefix: str) -> dict[str, str]:
    return {k.removeprefix(prefix): v for k, v in meta.items() if k.startswith(prefix)}


def _move_statistics(db: SqlDatabase, meta: dict[str, str]) -> None:
    watches = {name: json.loads(text) for name, text in _under(meta, "watch:").items()}
    for stored, *sums in db.conn.execute("SELECT stage, arm, count, reward, square, precision, shift FROM beliefs"):
        name, _, epoch = stored.partition("@")
        if epoch == "warm":
            db.conn.execute("INSERT INTO warm_sums VALUES (?, ?, ?, ?, ?, ?, ?, ?)", (*_key(name), *sums))
            continue
        number = int(epoch) if epoch else len(watches.get(name, {}).get("alarms", ()))
        row = (*_key(name), number, *sums)
        db.conn.execute("INSERT INTO statistics VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)", row)
    for name, watch in watches.items():
        sides = [(*_key(name), side, arm, value) for side in ("up", "down") for arm, value in watch[side].items()]
        db.conn.executemany("INSERT INTO drift_sums VALUES (?, ?, ?, ?, ?)", sides)
        alarms = [
            (*_key(name), i, a["arm"], a["direction"], a["through"], a["at"]) for i, a in enumerate(watch["alarms"])
        ]
        db.conn.executemany("INSERT INTO drift_alarms VALUES (?, ?, ?, ?, ?, ?, ?)", alarms)
    for name, text in _under(meta, "delays:").items():
        db.conn.execute("INSERT INTO delay_counts VALUES (?, ?)", _key(name))
        counts = [(*_key(name), arm, b, n) for arm, row in json.loads(text).items() for b, n in enumerate(row) if n]
        db.conn.executemany("INSERT INTO answer_delays VALUES (?, ?, ?, ?, ?)", counts)
    for name, text in _under(meta, "warm:").items():
        warm = json.loads(text)
        row = (*_key(name), warm["weight"], warm["rows"], warm["digest"], warm["since"])
        db.conn.execute("INSERT INTO warm_starts VALUES (?, ?, ?, ?, ?, ?)", row)
    starts = [(*_key(name), int(after)) for name, after in _under(meta, "since:").items()]
    db.conn.executemany("INSERT INTO schema_starts VALUES (?, ?, ?)", starts)


def _move_declarations(db: SqlDatabase, meta: dict[str, str]) -> None:
    digests, learning, schemas = (_under(meta, prefix) for prefix in ("spec:", "learning:", "schema:"))
    for stage in dict.fromkeys((*digests, *learning, *schemas)):
        row = (stage, digests.get(stage, ""), learning.get(stage, ""), int(schemas.get(stage, 1)))
        db.conn.execute("INSERT INTO served_stages VALUES (?, ?, ?, ?)", row)
    for first, text in sorted(_under(meta, "era:").items()):
        rows = [(int(first), stage, digest) for stage, digest in json.loads(text).items()]
        db.conn.executemany("INSERT INTO declaration_eras VALUES (?, ?, ?)", rows)
    arithmetics = [(int(first), int(number)) for first, number in _under(meta, "arithmetic:").items()]
    db.conn.executemany("INSERT INTO arithmetics VALUES (?, ?)", arithmetics)


def _move_cursors(db: SqlDatabase, meta: dict[str, str]) -> None:
    for endpoint, text in _under(meta, "webhook:").items():
        place = json.loads(text)
        era = int(place["era"].removeprefix("era:") or 0)
        row = (endpoint, place["decision"], place["settlement"], era, place.get("release", 0))
        db.conn.execute("INSERT INTO webhook_cursors VALUES (?, ?, ?, ?, ?)", row)
        alarms = [(endpoint, stage, n) for stage, n in place["alarms"].items()]
        db.conn.executemany("INSERT INTO webhook_alarm_cursors VALUES (?, ?, ?)", alarms)


SCHEMA = len(MIGRATIONS)
"""Number of the tables' present form."""


def table_names() -> list[str]:
    """Names of all tables of the present form; one that refers to another comes after it."""
    memory = _Memory()
    with closing(memory.conn):
        for change in MIGRATIONS:
            change(memory)
        query = "SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite_%' ORDER BY rowid"
        return [name for (name,) in memory.conn.execute(query)]
