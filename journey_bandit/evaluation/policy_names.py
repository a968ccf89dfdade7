"""Policy names: how a policy is named on the command line, and what the name means on a log."""

from collections.abc import Sequence
from pathlib import Path

from bandit.catalogue.model import NONE
from bandit.errors import InvalidRequest, Problem
from bandit.snapshot import Snapshot, from_zip, pack, unpack
from experiments.ope.evaluation_policies import (
    EvaluationPolicy,
    FixedArm,
    LoggedProbabilities,
    UniformChoice,
    snapshot_policy,
)

FORMS = "log, logged, uniform, none, fixed:ARM, or the file or folder of a snapshot"
_RESERVED = {NONE: "no nudge", "logged": "the policy that made the log"}


NamedPolicy = tuple[EvaluationPolicy, Snapshot | None]
"""An evaluation policy, with its snapshot if it is one."""


def targets(
    policies: Sequence[str | EvaluationPolicy], against: Sequence[str | EvaluationPolicy], arms: Sequence[str]
) -> tuple[list[NamedPolicy], list[NamedPolicy]]:
    """`target` of each name of `policies` and of `against`. Different snapshots of one stage and version, such as two
    candidates of one ledger, have the names of their files added. Raises InvalidRequest as `target`, for two `policies`
    or two `against` of one name, and for different policies of one name: figures are known by it.
    """
    given = [*policies, *against]
    found = _told_apart(given, [target(name, arms) for name in given])
    named = [policy.name for policy, _ in found]
    split = len(policies)
    for i, name in enumerate(named):
        before = [j for j in range(i) if named[j] == name]
        if any((j < split) == (i < split) or not _same(given[j], given[i]) for j in before):
            fix = "name each once, and give policies of your own other names"
            raise InvalidRequest(Problem("policy", f"two policies are called {name!r}", fix))
    return found[:split], found[split:]


def _told_apart(given: Sequence[str | EvaluationPolicy], found: list[NamedPolicy]) -> list[NamedPolicy]:
    """The policies, where a name is of different snapshots with the names of their files."""
    contents: dict[str, list[dict[str, bytes]]] = {}
    for policy, snapshot in found:
        if snapshot is not None:
            contents.setdefault(policy.name, []).append(pack(snapshot))
    shared = {name for name, packed in contents.items() if any(one != packed[0] for one in packed)}
    return [
        (policy._replace(name=f"{policy.name} ({name})"), snapshot)
        if snapshot is not None and policy.name in shared
        else (policy, snapshot)
        for name, (policy, snapshot) in zip(given, found, strict=True)
    ]


def _same(one: str | EvaluationPolicy, other: str | EvaluationPolicy) -> bool:
    """Whether two of the same name are the same policy: texts are, policies of one's own if they are one object."""
    return one is other or (isinstance(one, str) and isinstance(other, str))


def target(name: str | EvaluationPolicy, arms: Sequence[str]) -> tuple[EvaluationPolicy, Snapshot | None]:
    """Evaluation policy of a name over `arms`, and its snapshot if the name is one; an evaluation policy is its own.
    Raises InvalidRequest, which lists what a name may be, for a name that is not known, for none where named arms lack
    it, and for an evaluation policy that is called none or logged; SnapshotError as `read`.

    log: what the log's own columns pi_e say. logged: the policy that made it. uniform: every eligible nudge alike.
    none: no nudge. fixed:ARM: that one wherever it is eligible, no nudge elsewhere.
    """
    if isinstance(name, EvaluationPolicy):
        if name.name in _RESERVED:
            fix = f"call it otherwise, or give the text {name.name!r} for {_RESERVED[name.name]}"
            raise InvalidRequest(Problem("policy", f"the name {name.name!r} is reserved", fix))
        return name, None
    if name == NONE and arms and arms[0] != NONE:
        problem = f"the log has no arm {NONE!r}, so nothing says which one is no nudge"
        raise InvalidRequest(Problem("policy", problem, f"say fixed:ARM, one of {', '.join(arms)}"))
    simple = {"log": None, "logged": LoggedProbabilities(), "uniform": UniformChoice(), "none": FixedArm(0)}
    if name in simple:
        return EvaluationPolicy(name, simple[name]), None
    kind, _, arm = name.partition(":")
    if kind == "fixed" and arm:
        return EvaluationPolicy(name, FixedArm(_arm(arm, arms))), None
    if Path(name).exists():
        snapshot = read(Path(name))
        title = f"{snapshot.app}/{snapshot.stage} version {snapshot.version}"
        return EvaluationPolicy(title, snapshot_policy(snapshot, arms or snapshot.stage_spec.arms)), snapshot
    raise InvalidRequest(Problem("policy", f"{name!r} is not known", f"one of {FORMS}"))


def read(path: Path) -> Snapshot:
    """Snapshot from its archive, or from the folder that holds policy.json and posterior.npz. Raises SnapshotError if
    either is no snapshot.
    """
    if path.is_dir():
        return unpack({file.name: file.read_bytes() for file in path.iterdir() if file.is_file()})
    return from_zip(path.read_bytes())


def _arm(name: str, arms: Sequence[str]) -> int:
    if name in arms:
        return arms.index(name)
    if name.isdigit():
        return int(name)
    raise InvalidRequest(Problem("policy", f"there is no arm {name!r}", f"one of {', '.join(arms) or '0, 1, …'}"))
