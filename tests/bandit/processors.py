"""Prints one digest of everything a decision goes through, for `test_processors`, which runs it on other processors."""

import hashlib
import json
import sys

import msgspec
import numpy as np
from numpy.typing import NDArray

from bandit import engine, features
from bandit.alarms.exploration import effective_arms
from bandit.alarms.guardrail_metric import GuardrailBound, GuardrailEvidence, lower_bound, scan
from bandit.alarms.silence import OutcomeGaps, silence
from bandit.belief import Belief, empty
from bandit.catalogue import loading
from bandit.catalogue.model import Stage
from bandit.learning import delay, pending
from bandit.policies import Beta, Centred, EpsilonGreedy, Hierarchical, Linear, LinUCB, Logistic, Uniform
from bandit.policies.shared import Action, Shared
from bandit.snapshot import Snapshot, pooled


def world(stage: Stage, seed: int, n: int) -> tuple[pending.OpenDecisions, Belief]:
    """Open decisions, and what others have taught, with sites as if they were read from a ledger."""
    rng, d = np.random.default_rng(seed), len(features.of(stage).columns)
    k = len(stage.arms)
    x = np.rint(rng.uniform(-1, 1, (n, d)) * 4096) / 4096
    x[:, 0] = 1.0
    arm, reward = rng.integers(0, k, n), (rng.random(n) < 0.2).astype(float)
    if stage.reward.kind != "binary":
        reward *= rng.integers(1, 4096, n) / 4096
    tau, nu = rng.integers(1, 2**20, n) / 2**22, rng.integers(-(2**20), 2**20, n) / 2**21
    if stage.learner.link == "identity":
        tau, nu = np.ones(n), reward
    p = np.rint(rng.dirichlet(np.ones(k), n) * 2**24) / 2**24
    learner = stage.learner
    belief = learner.sums(k, learner.design(x, arm, p), arm, tau, nu, reward)
    at = np.arange(n, dtype=np.int64) * 1000
    answered = np.where(rng.random(n) < 0.3, at + 500, 0)
    every = np.ones(n, dtype=bool)
    return pending.OpenDecisions(np.arange(n), arm, at, at + 10**6, answered, reward, x, p, every), belief


def decided(live: engine.PreparedPolicy, x: NDArray[np.float64]) -> list[bytes]:
    """One at a time, and all together."""
    everyone = np.ones((len(x), len(live.snapshot.stage_spec.arms)), dtype=np.bool_)
    many = engine.choose_many(live, x, everyone)
    for i, row in enumerate(x[:12]):
        for one, all_ in zip(engine.choose(live, row, everyone[i]), many, strict=True):
            assert one.tobytes() == all_[i].tobytes(), "one is not as many"
    return [part.tobytes() for part in many]


def ranked() -> list[bytes]:
    """Actions of a request, under a shared model."""
    policy, rng = Shared(columns=128), np.random.default_rng(5)
    phi = policy.encode(
        [{"hour": 7.5}], [Action(f"a{i}", [{"price": i / 7, "kind": "x" * (i % 3)}]) for i in range(9)], b"s"
    )
    rows = np.rint(rng.uniform(-1, 1, (300, 128)) * 4096) / 4096
    sums = empty(1, 128)
    belief = sums._replace(precision=rows.T[None] @ rows / 5, shift=rows[None].sum(axis=1) / 8)
    return [part.tobytes() for part in policy.posterior(belief).choose(phi, np.ones(9, dtype=np.bool_))]


def watched() -> list[bytes]:
    """Statistics of alarms: a replica raises the alarm that another raises."""
    rng = np.random.default_rng(6)
    evidence = GuardrailEvidence()
    numbers = list[float]()
    for is_bad in (rng.random(400) < 0.08).tolist():
        evidence = scan(GuardrailBound(most=0.05), evidence, [is_bad])
        numbers += [evidence.e_value, *evidence.wealth]
    p = rng.dirichlet(np.full(7, 0.5), 300)
    numbers += [lower_bound(evidence, 0.05), *effective_arms(p, p > 0.0), *silence(OutcomeGaps(40, 17.0), 0.3)]
    return [np.array(numbers).tobytes()]


def learned() -> dict[str, list[bytes]]:
    """Sites of rows that are learned one after the other, and of some that are learned at once after 2,100 others."""
    found = dict[str, list[bytes]]()
    declared = loading.parse(loading.read_shipped("travel")).stages["cart"]
    for policy in (Centred(), Hierarchical(), Hierarchical(scales="learned"), Logistic()):
        stage = msgspec.structs.replace(declared, policy=policy)
        for seed, n, many in ((7, 60, 200), (8, 2100, 128)):
            live = Snapshot("travel", "cart", stage, 1, world(stage, seed, n)[1])
            rows, _ = world(stage, seed + 2, many)
            x = policy.design(rows.x, rows.arm, rows.propensity.copy())
            sites = policy.sites(live.belief, live.arms, x, rows.arm, rows.reward)
            found[f"sites {n} {json.dumps(msgspec.to_builtins(policy))}"] = [part.tobytes() for part in sites]
    return found


def main() -> None:
    """Print {part: digest}."""
    found = dict[str, list[bytes]]()
    for app in ("travel", "fashion", "hillstrom"):
        stages = loading.parse(loading.read_shipped(app)).stages
        for name, declared in stages.items():
            binary = declared.reward.kind == "binary"
            policies = [Linear(), Hierarchical(), Hierarchical(scales="learned"), LinUCB(), EpsilonGreedy(), Uniform()]
            for policy in [*policies, Logistic(), Beta(alpha=0.5)] if binary else policies:
                stage = msgspec.structs.replace(declared, policy=policy, top_two=0.7)
                rows, belief = world(stage, 3, 400)
                snapshot = Snapshot(app, name, stage, 1, belief)
                seen = pending.amounts_to(snapshot, rows, np.zeros((len(stage.arms), delay.BUCKETS)), 900_000)
                kin = Snapshot(app, "kin", stage, 1, world(stage, 4, 50)[1])
                whole = pooled([msgspec.structs.replace(snapshot, pending=seen), kin])[0]
                parts = decided(engine.prepare(whole), rows.x[:40])
                label = f"{app} {name} {json.dumps(msgspec.to_builtins(policy))}"
                found[label] = [*parts, *(part.tobytes() for part in seen or ())]
    found.update(learned())
    found["actions"] = ranked()
    found["alarms"] = watched()
    json.dump({label: hashlib.sha256(b"".join(parts)).hexdigest() for label, parts in found.items()}, sys.stdout)


if __name__ == "__main__":
    main()
