'''Contextual bandits of a customer journey: the library, and the command line that is built on it.

What `__all__` names is public; everything else may change. A catalogue in TOML declares stages, nudges and rewards
(`parse`). What a stage has learned is a `Snapshot`; `prepare` computes its posterior once, and `decide` (or `rank`, for
actions that come with the request) then answers each question with an arm and the exact probability it was drawn with.
`settle` turns what was reported into what is learned. These functions do no I/O, read no clock and draw no random
numbers: time and salt are arguments, so that the same arguments give the same bits. Times are whole microseconds since
1970 (UTC). Arrays state their shapes: k arms with no nudge first, d features, n rows.

    >>> from uuid import UUID
    >>> import journey_bandit as jb
    >>> catalogue = jb.parse("""
    ... app = "shop"
    ... currency = "EUR"
    ... [stages.cart]
    ... reward = { kind = "binary", window = "1h", value = 20.0 }
    ... [stages.cart.features]
    ... items = { type = "number", min = 0, max = 20, default = 1 }
    ... [stages.cart.nudges.reminder]
    ... type = "reminder"
    ... format = "push"
    ... """)
    >>> live = jb.prepare(jb.Snapshot.untrained(catalogue, "cart"))
    >>> query = jb.DecisionQuery(id=UUID(int=1), user_id="ada", context={"items": 3})
    >>> decision = jb.decide(live, query, now=1_760_000_000_000_000, salt=b"secret")
    >>> decision.arm, decision.propensity.tolist()
    ('none', [0.6099429130554199, 0.3900570869445801])

Names are imported when they are first used: `import journey_bandit` alone imports no other package. ImportError, in one
line, if another package of the name `bandit`, `api`, `experiments` or `simulations` hides the one of this distribution.
Policies of installed packages (`bandit.policies.registry`) are known from the first use on.
'''

import importlib
import importlib.metadata
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from bandit.belief import Belief
    from bandit.catalogue.loading import parse
    from bandit.catalogue.model import Catalogue, Stage
    from bandit.engine import DecisionQuery, RankQuery, choose, choose_many, decide, prepare, rank, recompute
    from bandit.errors import (
        CatalogueError,
        Conflict,
        Forbidden,
        InvalidRequest,
        JourneyBanditError,
        LedgerError,
        LedgerMismatch,
        NotFound,
        Overloaded,
        PolicyError,
        Problem,
        PropensityError,
        RemoteError,
        SnapshotError,
        Unavailable,
    )
    from bandit.learning.settlement import settle
    from bandit.policies.protocol import ArmEconomics, ExactSites, Policy, Posterior, Scores
    from bandit.records import Decision, Event, Outcome, Settlement
    from bandit.snapshot import Snapshot, pack, unpack

__all__ = [  # noqa: RUF022 - in the order of the reference page
    "parse",
    "Catalogue",
    "Stage",
    "Snapshot",
    "pack",
    "unpack",
    "prepare",
    "DecisionQuery",
    "decide",
    "RankQuery",
    "rank",
    "choose",
    "choose_many",
    "recompute",
    "settle",
    "Decision",
    "Outcome",
    "Settlement",
    "Event",
    "Policy",
    "ExactSites",
    "Posterior",
    "ArmEconomics",
    "Scores",
    "Belief",
    "Problem",
    "JourneyBanditError",
    "CatalogueError",
    "InvalidRequest",
    "Forbidden",
    "NotFound",
    "Conflict",
    "PolicyError",
    "PropensityError",
    "SnapshotError",
    "RemoteError",
    "LedgerError",
    "LedgerMismatch",
    "Unavailable",
    "Overloaded",
]

_MODULES = {
    "bandit.catalogue.loading": ("parse",),
    "bandit.catalogue.model": ("Catalogue", "Stage"),
    "bandit.snapshot": ("Snapshot", "pack", "unpack"),
    "bandit.engine": ("prepare", "DecisionQuery", "decide", "RankQuery", "rank", "choose", "choose_many", "recompute"),
    "bandit.learning.settlement": ("settle",),
    "bandit.records": ("Decision", "Outcome", "Settlement", "Event"),
    "bandit.policies.protocol": ("Policy", "ExactSites", "Posterior", "ArmEconomics", "Scores"),
    "bandit.belief": ("Belief",),
}
_HOME = {name: module for module, names in _MODULES.items() for name in names}


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from journey_bandit import own_packages

    if problem := own_packages.problem():
        raise ImportError(problem)
    from bandit.policies import registry

    registry.search(importlib.metadata.entry_points)
    found = getattr(importlib.import_module(_HOME.get(name, "bandit.errors")), name)
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    return [*__all__, "__doc__", "__name__", "__path__"]
