"""How far do forged rewards of one person move a nudge that loses? With a contribution limit and without.

    python -m benchmarks.comparison.forged_rewards            two or three minutes
    python -m benchmarks.comparison.forged_rewards --policies centred --floor 0.001
    python -m benchmarks.comparison.forged_rewards --key              one key that invents people: when is it accused?

The service, without HTTP and on a driven clock: a stage with three nudges, of which `call` loses. So many honest people
(`--honest`) are decided for once each and rewarded at the true rates. Then one person asks again and again, and reports
a reward whenever `call` is drawn, until so many (`--forged`) were accepted, or four times as many decisions were made.
"aimed": each request includes `call` alone. The probability of `call` for somebody else is read after every tenth of
the decisions, while rewards are open and after they have settled; `highest` is the highest of these.

`--key`: so many people (`--people`) are invented by a stolen key, one decision each, with an honest person between two
of them; all that the key asks for is aimed, and rewarded. `accused at` is the number of the forged rewards that had
settled when the alarm came; a tenth of them matures at a time.

Everything is drawn from seeds: the figures are the same on any machine.
"""

import os

for _name in ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS"):  # before numpy reads them
    os.environ.setdefault(_name, "1")

import argparse
import asyncio
import random
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import NamedTuple

from api.decisions.budgets import Budgets
from api.decisions.service import DecisionService
from api.learning.worker import Worker
from api.ledger import audit
from api.messages.decisions import DecisionReply, DecisionRequest, OutcomeRequest
from api.metrics import Metrics
from api.stores.memory.store import MemoryStore
from bandit.catalogue.loading import parse

RATES = {"none": 0.10, "tip": 0.14, "offer": 0.12, "call": 0.05}
HOUR = 3_600_000_000
_BEGIN = 1_760_000_000_000_000
_CATALOGUE = """
app = "shop"
currency = "EUR"
[stages.signup]
policy = {{ name = "{policy}", prior_mean = 0.1 }}
{limit}
floor = {floor}
reward = {{ kind = "binary", window = "1h", value = 10.0 }}
features = {{}}
[stages.signup.nudges]
tip = {{ type = "help", format = "banner" }}
offer = {{ type = "discount", format = "banner", cost_when_rewarded = 1.0 }}
call = {{ type = "help", format = "popup", cost = 0.1 }}
"""


class Probabilities(NamedTuple):
    """Probabilities of the losing nudge for a stranger: before the attack, the highest since, and how many forged
    rewards were accepted in how many decisions. `shown`: how often honest people were shown the nudge.
    """

    shown: int
    before: float
    highest: float
    accepted: int
    decisions: int


class DrivenService:
    """Service of one stage on a clock that moves when it is told to."""

    def __init__(self, policy: str, limit: str, floor: float):
        self.now, self.ids = _BEGIN, random.Random(7)
        catalogue, store, metrics = (
            parse(_CATALOGUE.format(policy=policy, limit=limit, floor=floor)),
            MemoryStore(),
            Metrics(),
        )
        salt = audit.claim(store, catalogue, "salt")
        self.loop = asyncio.new_event_loop()
        budgets = Budgets(catalogue, store, self.now)
        self.worker = Worker(store, catalogue, lambda: self.now, metrics, settled=budgets.settled, asked=True)
        self.service = DecisionService(
            catalogue, store, self.worker, budgets, salt=salt, clock=lambda: self.now, metrics=metrics
        )

    def decide(self, user: str, include: list[str] | None = None) -> DecisionReply:
        """Decision for a user; ids come from a seed, so draws do."""
        number = uuid.UUID(int=self.ids.getrandbits(128), version=4)
        ask = DecisionRequest(stage="signup", user_id=user, context={}, decision_id=number, include=include)
        return self.loop.run_until_complete(self.service.decide(ask))

    def reward(self, made: DecisionReply, key: str = "backend") -> None:
        """Report a reward for a decision by a key."""
        report = OutcomeRequest(decision_id=made.decision_id, kind="reward")
        self.loop.run_until_complete(self.service.report(report, key))

    def learn(self) -> None:
        """Learn everything that was reported and has matured."""
        self.loop.run_until_complete(self.service.policies(wait=True))

    def probability(self) -> float:
        """Probability of the losing nudge for somebody new, after learning."""
        self.now += HOUR // 20
        self.learn()
        return self.decide(f"looks-{self.ids.random()}").propensities["call"]


@contextmanager
def driven(policy: str, limit: str, floor: float) -> Iterator[DrivenService]:
    """Running service, stopped at the end."""
    made = DrivenService(policy, limit, floor)
    made.worker.start()
    try:
        yield made
    finally:
        made.worker.stop()
        made.loop.run_until_complete(asyncio.sleep(0))
        made.loop.close()


class Accusation(NamedTuple):
    """Accusation of a key that forges: probabilities of the losing nudge for a stranger before, when the alarm came,
    and at the end; how many forged rewards had settled when it came, and until the next time that any matured.
    """

    before: float
    then: float
    end: float
    accused_at: int
    known_at: int
    others: int


def invent(policy: str, limit: str, floor: float, *, honest: int, people: int) -> Accusation:
    """Accusation of a key that invents so many people on a stage with so many honest decisions."""
    with driven(policy, limit, floor) as service:
        chance = random.Random(5)

        def someone(name: str) -> None:
            made = service.decide(name)
            if chance.random() < RATES[made.nudge.id]:
                service.reward(made)

        for n in range(honest):
            someone(f"honest-{n}")
            if n % 100 == 99:
                service.now += HOUR
                service.learn()
        service.now += 2 * HOUR
        before = then = service.probability()
        accused_at = known_at = 0
        for n in range(people):
            someone(f"between-{n}")
            service.reward(service.decide(f"invented-{n}", ["call"]), "stolen")
            if n % max(people // 10, 1) == max(people // 10, 1) - 1:
                service.now += 2 * HOUR
                probability = service.probability()
                watch = service.worker.learning.reward_watches["signup"]
                if not known_at and (mine := [alarm for alarm in watch.alarms if alarm.reporter == "stolen"]):
                    accused_at, known_at, then = round(mine[0].reward) + 1, n + 1, probability
        alarms = service.worker.learning.reward_watches["signup"].alarms
        others = sum(alarm.reporter != "stolen" for alarm in alarms)
        return Accusation(before, then, service.probability(), accused_at, known_at, others)


def attack(policy: str, limit: str, floor: float, *, aimed: bool, honest: int, forged: int) -> Probabilities:
    """Probabilities before and during the attack of one person on a stage with so many honest decisions."""
    with driven(policy, limit, floor) as service:
        chance, shown = random.Random(5), 0
        for n in range(honest):
            made = service.decide(f"honest-{n}")
            shown += made.nudge.id == "call"
            if chance.random() < RATES[made.nudge.id]:
                service.reward(made)
            if n % 100 == 99:
                service.now += HOUR
                service.learn()
        service.now += 2 * HOUR
        before = highest = service.probability()
        accepted = decisions = 0
        while accepted < forged and decisions < 4 * forged:
            made = service.decide("forges", ["call"] if aimed else None)
            decisions += 1
            if made.nudge.id == "call":
                service.reward(made)
                accepted += 1
            if decisions % max(forged // 10, 1) == 0:
                highest = max(highest, service.probability())
        service.now += 2 * HOUR
        return Probabilities(shown, before, max(highest, service.probability()), accepted, decisions)


def print_accusations(policies: Sequence[str], floor: float, honest: int, people: int) -> None:
    """Print the table of `--key`."""
    print("| policy | before | when accused | at the end | accused at | known when had settled | other keys accused |")
    print("|---|---|---|---|---|---|---|")
    limit = 'contribution = { most = 5, per = "7d" }'
    for policy in policies:
        found = invent(policy, limit, floor, honest=honest, people=people)
        moved = f"{found.before:.2%} | {found.then:.2%} | {found.end:.2%}"
        print(f"| `{policy}` | {moved} | {found.accused_at} | {found.known_at} | {found.others} |", flush=True)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--honest", type=int, default=4000)
    parser.add_argument("--forged", type=int, default=1500)
    parser.add_argument(
        "--floor", type=float, default=0.02, help="least probability of a nudge; 0.001: little is known"
    )
    parser.add_argument("--policies", nargs="+", default=["centred", "hierarchical", "linear"])
    parser.add_argument("--key", action="store_true", help="one key that invents people, instead of one person")
    parser.add_argument("--people", type=int, default=500, help="people that the key invents")
    asked = parser.parse_args()
    if asked.key:
        print_accusations(asked.policies, asked.floor, asked.honest, asked.people)
        return
    print("| policy | limit | requests | honestly shown | before | highest | forged rewards, of decisions |")
    print("|---|---|---|---|---|---|---|")
    limits = {"none": "", "5 in 7 d": 'contribution = { most = 5, per = "7d" }'}
    for policy in asked.policies:
        for name, limit in limits.items():
            for aimed in (False, True):
                found = attack(policy, limit, asked.floor, aimed=aimed, honest=asked.honest, forged=asked.forged)
                kind = "aimed" if aimed else "plain"
                moved = f"{found.shown:,} | {found.before:.2%} | {found.highest:.2%}"
                forged = f"{found.accepted:,} of {found.decisions:,}"
                print(f"| `{policy}` | {name} | {kind} | {moved} | {forged} |", flush=True)


if __name__ == "__main__":
    main()
