"""obp's estimators on arrays from a file, timed: run by the interpreter of an environment that has obp.

    python -I benchmarks/evidence/obp_times.py ARRAYS.npz → one JSON object {estimator: [value, seconds]}

obp 0.5.7 needs Python ≤ 3.9; its 0.4.1 installs elsewhere, without torch that it imports. So it runs in an environment
of its own: `pip install obp==0.5.7 'matplotlib<3.8'`.
"""

import json
import sys
from time import perf_counter

import numpy as np
from obp import ope

NAMES = {
    "ips": "InverseProbabilityWeighting",
    "snips": "SelfNormalizedInverseProbabilityWeighting",
    "dm": "DirectMethod",
    "dr": "DoublyRobust",
    "sndr": "SelfNormalizedDoublyRobust",
    "switch_dr": "SwitchDoublyRobust",
    "dros": "DoublyRobustWithShrinkage",
}
SETTINGS = {"switch_dr": {"lambda_": 10.0}, "dros": {"lambda_": 10.0}}


def main() -> None:
    """Read the arrays, time every obp estimator once, and print one JSON object {estimator: [value, seconds]}."""
    arrays = np.load(sys.argv[1])
    given = {
        "reward": arrays["reward"],
        "action": arrays["action"],
        "pscore": arrays["pscore"],
        "action_dist": arrays["pi"][:, :, None],
        "estimated_rewards_by_reg_model": arrays["q_hat"][:, :, None],
        "position": np.zeros(len(arrays["action"]), dtype=int),
    }
    found = {}
    for name, kind in NAMES.items():
        estimator = getattr(ope, kind)(**SETTINGS.get(name, {}))
        started = perf_counter()
        value = estimator.estimate_policy_value(**given)
        found[name] = [float(value), perf_counter() - started]
    print(json.dumps(found))


if __name__ == "__main__":
    main()
