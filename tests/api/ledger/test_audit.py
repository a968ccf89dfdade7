"""Whose ledger it is, and that the belief is always exactly what the ledger says."""

import random
import sqlite3
import uuid
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from api.ledger import audit
from api.ledger.audit import RebuildResult
from api.stores.memory.store import MemoryStore
from api.stores.protocol import Store
from api.stores.sqlite.store import SqliteStore
from bandit import engine
from bandit.catalogue.loading import parse
from bandit.catalogue.model import Catalogue
from bandit.errors import LedgerMismatch
from bandit.records import Decision

Working = Callable[..., AbstractContextManager[Any]]
Later = Callable[[float], int]

HOUR = 3600


def changed(text: str, old: str, new: str) -> Catalogue:
    """The catalogue with one thing declared otherwise."""
    assert text.count(old) == 1
    return parse(text.replace(old, new))


def rebuilt(store: Store) -> dict[str, RebuildResult]:
    return {r.stage: r for r in audit.rebuild(store, audit.stages(store))}


# -- claiming --------------------------------------------------------------------------------------------------


def test_the_same_catalogue_and_salt_open_the_ledger_again_with_the_same_key(catalogue: Catalogue) -> None:
    store = MemoryStore()
    assert audit.claim(store, catalogue, "pepper") == audit.claim(store, catalogue, "pepper")
    assert audit.salt_of(store, "pepper") == audit.claim(store, catalogue, "pepper")


def test_a_salt_is_made_once_and_kept(catalogue: Catalogue) -> None:
    one, other = MemoryStore(), MemoryStore()
    assert audit.claim(one, catalogue, None) == audit.claim(one, catalogue, None) == audit.salt_of(one, None)
    assert audit.claim(one, catalogue, None) != audit.claim(other, catalogue, None)


def test_a_given_salt_is_never_stored(catalogue: Catalogue, tmp_path: Path) -> None:
    store = SqliteStore(tmp_path / "ledger.db")
    audit.claim(store, catalogue, "pepper-corn")
    store.close()
    assert not [f for f in tmp_path.iterdir() if b"pepper-corn" in f.read_bytes()]


@pytest.mark.parametrize(
    ("old", "new", "salt", "named"),
    [
        pytest.param('app = "shop"', 'app = "bank"', "pepper", ["app 'shop'", "'bank'", "--store"], id="another app"),
        pytest.param("", "", "salz", ["salt", "JOURNEY_BANDIT_SALT", "--store"], id="another salt"),
        pytest.param("", "", None, ["salt", "JOURNEY_BANDIT_SALT", "--store"], id="no salt"),
        pytest.param("max = 100, default = 30", "max = 99, default = 30", "pepper", ["'signup'", "features", "undo"],
                     id="another range of a feature"),
        pytest.param('"pro", "other"]', '"team", "other"]', "pepper", ["'signup'", "undo"], id="another category"),
        pytest.param('returning = { type = "boolean", default = false }', "", "pepper", ["'signup'"], id="one less"),
        pytest.param("min = -10.0, max = 100.0", "min = -10.0, max = 90.0", "pepper", ["'instant'", "reward"],
                     id="another range of the reward"),
    ],
)  # fmt: skip
def test_a_ledger_of_something_else_is_refused_with_the_way_out(
    catalogue: Catalogue, catalogue_text: str, old: str, new: str, salt: str | None, named: list[str]
) -> None:
    store = MemoryStore()
    audit.claim(store, catalogue, "pepper")
    before = (store.meta(), dict(store.specs()))
    with pytest.raises(LedgerMismatch) as refused:
        audit.claim(store, changed(catalogue_text, old, new) if old else catalogue, salt)
    assert [word for word in named if word not in str(refused.value)] == []
    assert (store.meta(), store.specs()) == before


def test_every_reason_is_named_at_once(catalogue: Catalogue, catalogue_text: str) -> None:
    store = MemoryStore()
    audit.claim(store, catalogue, "pepper")
    other = parse(catalogue_text.replace('app = "shop"', 'app = "bank"').replace("max = 20", "max = 19"))
    with pytest.raises(LedgerMismatch) as refused:
        audit.claim(store, other, "salz")
    assert all(word in str(refused.value) for word in ("'shop'", "salt", "'basket'"))


def test_the_salt_of_a_ledger_is_checked_before_it_is_used(catalogue: Catalogue) -> None:
    store = MemoryStore()
    audit.claim(store, catalogue, "pepper")
    for salt, said in ((None, "written with a salt of its own"), ("salz", "the salt is not the one of this ledger")):
        with pytest.raises(LedgerMismatch, match=f"{said}: give the service's with --salt, or set JOURNEY_BANDIT_SALT"):
            audit.salt_of(store, salt)


# -- a catalogue that changes ----------------------------------------------------------------------------------

NEW_NUDGE = '[stages.signup.nudges.video]\ntype = "help"\nformat = "inline"\n\n[stages.basket]\n'


def test_adding_a_nudge_keeps_what_was_learned(
    working: Working, catalogue: Catalogue, catalogue_text: str, later: Later
) -> None:
    store = MemoryStore()
    with working(store) as desk:
        for n in range(1, 40):
            desk.ask(n, age=n)
            desk.report(n, value=float(n % 2))
        later(HOUR)
        desk.learn()
        before = desk.worker.prepared["signup"].snapshot
    more = changed(catalogue_text, "[stages.basket]\n", NEW_NUDGE)
    with working(store, more) as desk:
        after = desk.worker.prepared["signup"].snapshot
        assert after.stage_spec.arms == (*before.stage_spec.arms, "video")
        assert [part[:-1].tobytes() for part in after.belief] == [part.tobytes() for part in before.belief]
        assert after.version == before.version == 39
        assert desk.ask(100).propensities["video"] > 0
    assert all(r.equal for r in rebuilt(store).values())


def test_a_nudge_that_is_taken_away_and_brought_back_knows_what_it_taught_meanwhile(
    working: Working, catalogue: Catalogue, catalogue_text: str, later: Later
) -> None:
    """Its decisions mature while it is not declared; the ledger keeps what they taught."""
    store = MemoryStore()
    more = changed(catalogue_text, "[stages.basket]\n", NEW_NUDGE)
    with working(store, more) as desk:
        arms = [desk.ask(n, user=str(n)).nudge.id for n in range(1, 60)]
        for n in range(1, 60):
            desk.report(n)
    assert "video" in arms
    later(HOUR)
    with working(store) as desk:
        desk.learn()
        assert all(r.equal for r in rebuilt(store).values())
    with working(store, more) as desk:
        belief = desk.worker.prepared["signup"].snapshot.belief
        assert belief.n.tolist() == [arms.count(arm) for arm in more.stages["signup"].arms]
    assert all(r.equal for r in rebuilt(store).values())


def test_decisions_are_settled_by_the_rules_they_were_made_under(
    working: Working, catalogue_text: str, later: Later
) -> None:
    """A new default or a new need for activation is not held against decisions of before, nor by the audit."""
    store = MemoryStore()
    with working(store) as desk:
        desk.ask(1, "shown")
        desk.report(1, "activation")
        desk.ask(2, "shown")
        desk.ask(3, "signup")
    later(HOUR)
    stricter = parse(
        catalogue_text.replace("default = 5.0", "default = 9.0").replace("floor = 0.02", 'activation = "required"')
    )
    with working(store, stricter) as desk:
        desk.ask(4, "signup")
        desk.learn()
        done = [(s.reward, s.why, s.learned) for f in store.decisions() if (s := f.settlement)]
        assert done == [(5.0, "silence", True), (5.0, "not activated", False), (0.0, "silence", True)]
        later(HOUR)
        desk.learn()
    assert [f.settlement.why for f in store.decisions("signup") if f.settlement] == ["silence", "not activated"]
    assert all(r.equal for r in rebuilt(store).values())


# -- rebuilding ------------------------------------------------------------------------------------------------


def traffic(desk: Any, later: Later, rng: random.Random, decisions: int, catalogue: Catalogue) -> None:
    """Decisions of every stage; rewards, activations, retractions, repeated, late or never."""
    numbers = {"signup": "age", "basket": "items", "shown": "score"}
    asked: list[tuple[int, str]] = []
    rewarded: set[int] = set()
    for n in range(1, decisions + 1):
        stage = rng.choice(list(catalogue.stages))
        context = {numbers[stage]: rng.uniform(-2, 120)} if stage in numbers else {"country": rng.choice(("de", "fr"))}
        desk.ask(n, stage, user=f"user {rng.randrange(decisions)}", **context)
        asked.append((n, stage))
        if rng.random() < 0.02:
            desk.learn()
        for _ in range(rng.choice((0, 0, 1, 2))):
            about, of = asked[-rng.randint(1, min(len(asked), 400))]
            kind = rng.choice(("reward", "reward", "activation", "retraction"))
            binary = catalogue.stages[of].reward.kind == "binary"
            value = {
                "reward": float(rng.randrange(2)) if binary else rng.uniform(-20, 120),
                "activation": None,
                "retraction": None if binary else rng.choice((None, 0.5)),
            }[kind]
            if kind == "reward" and catalogue.stages[of].reward.settle == "reward" and about in rewarded:
                continue
            rewarded |= {about} if kind == "reward" else set()
            name = f"{kind} {rng.randrange(10**9)}"
            for _ in range(rng.choice((1, 1, 2))):
                desk.report(about, kind, value, name)
        later(rng.expovariate(1 / 20))


@pytest.mark.parametrize(("kind", "decisions"), [("memory", 3000), ("sqlite", 800)])
def test_the_live_belief_is_the_rebuilt_one_bit_for_bit(
    working: Working, catalogue: Catalogue, later: Later, tmp_path: Path, kind: str, decisions: int
) -> None:
    """After random traffic with late outcomes, retractions, repetitions, holdouts and many learning batches."""
    store: Store = MemoryStore() if kind == "memory" else SqliteStore(tmp_path / "ledger.db")
    with working(store) as desk:
        traffic(desk, later, random.Random(20_251_009), decisions, catalogue)
        later(3 * HOUR)
        desk.learn()
        live = {name: one.snapshot for name, one in desk.worker.prepared.items()}
    outcomes = [o for f in store.decisions() for o in f.outcomes]
    why = {(f.settlement.why, f.settlement.learned) for f in store.decisions() if f.settlement}
    assert {("holdout", False), ("retraction", True), ("not activated", False), ("silence", True)} <= why
    assert {o.late for o in outcomes} == {True, False}
    assert store.counts().settlements == decisions
    results = rebuilt(store)
    assert {name: (r.belief.digest(), r.tally.version) for name, r in results.items()} == {
        name: (s.belief.digest(), s.version) for name, s in live.items()
    }
    assert all(r.equal for r in results.values())
    assert sum(r.settlements for r in results.values()) == decisions
    recomputed_alike(store, every=decisions // 20)
    store.close()


def recomputed_alike(store: Store, every: int) -> None:
    """Every so many decisions: the engine, given what it was made with from the ledger, says the same again."""
    salt = audit.salt_of(store, "salt")
    for found in list(store.decisions())[::every]:
        made = found.decision
        again = engine.recompute(engine.prepare(audit.past(store, found)), made, salt)
        assert all(same(getattr(again, name), getattr(made, name)) for name in Decision.__struct_fields__)


def same(a: Any, b: Any) -> bool:
    return a.tobytes() == b.tobytes() if isinstance(a, np.ndarray) else bool(a == b)


@pytest.fixture
def file(working: Working, later: Later, tmp_path: Path) -> Path:
    """A ledger file with five settled decisions of one stage."""
    path = tmp_path / "ledger.db"
    store = SqliteStore(path)
    with working(store) as desk:
        for n in range(1, 6):
            desk.ask(n, age=10.0 * n)
            desk.report(n)
        later(HOUR)
        desk.learn()
    store.close()
    return path


@pytest.mark.parametrize(
    ("statement", "wrong"),
    [
        pytest.param("SELECT 1", (), id="nothing"),
        pytest.param("UPDATE statistics SET reward = reward + 1 WHERE stage = 'signup' AND arm = 'tip'", (),
                     id="a sum of the belief"),
        pytest.param("UPDATE statistics SET precision = zeroblob(length(precision)) WHERE arm = 'none'", (),
                     id="a matrix of the belief"),
        pytest.param("DELETE FROM statistics WHERE stage = 'signup'", (), id="the belief is gone"),
        pytest.param("UPDATE settlements SET reward = 0 WHERE decision_seq = 3", (3,), id="a reward"),
        pytest.param("UPDATE settlements SET reward = 0, nu = 0 WHERE decision_seq = 3", (3,), id="a reward and its ν"),
        pytest.param("UPDATE settlements SET nu = 0 WHERE decision_seq = 3", (), id="a ν"),
        pytest.param("UPDATE settlements SET learned = 0 WHERE decision_seq = 2", (2,), id="what was learned"),
        pytest.param("UPDATE outcomes SET value = 0 WHERE seq = 4", (4,), id="an outcome"),
        pytest.param("DELETE FROM outcomes WHERE seq = 4", (4,), id="an outcome is gone"),
        pytest.param("DELETE FROM settlements WHERE decision_seq = 5", (), id="a settlement is gone"),
        pytest.param("UPDATE decisions SET x = (SELECT x FROM decisions WHERE seq = 1) WHERE seq = 2", (),
                     id="a context"),
    ],
)  # fmt: skip
def test_a_change_of_the_file_behind_the_service_is_found(file: Path, statement: str, wrong: tuple[int, ...]) -> None:
    tampering = sqlite3.connect(file)
    tampering.execute(statement)
    tampering.commit()
    tampering.close()
    store = SqliteStore(file, read_only=True)
    result = rebuilt(store)["signup"]
    store.close()
    assert result.equal is (statement == "SELECT 1")
    assert result.wrong_rewards == wrong


def test_the_past_is_rebuilt_up_to_a_version(file: Path) -> None:
    store = SqliteStore(file, read_only=True)
    sums = [
        r.belief.n.sum()
        for through in (0, 2, 5, None)
        for r in audit.rebuild(store, audit.stages(store), through)
        if r.stage == "signup"
    ]
    assert sums == [0.0, 2.0, 5.0, 5.0]
    store.close()


def test_a_decision_names_the_settlements_it_was_made_with(working: Working, later: Later) -> None:
    store = MemoryStore()
    with working(store) as desk:
        desk.ask(1)
        desk.ask(2, "basket", user="someone")
        later(HOUR)
        desk.learn()
        assert desk.ask(3).policy_version == desk.worker.prepared["signup"].snapshot.version > 0
        assert desk.ask(4, "instant").policy_version == 0
    found = store.decisions_by_id([uuid.UUID(int=3)])[uuid.UUID(int=3)]
    assert (
        msgspec.structs.asdict(found.decision)["settlement_version"] == desk.worker.prepared["signup"].snapshot.version
    )
