"""Ask for known vulnerabilities of what requirements.lock names: pip-audit, of which a package that could not be looked
up is no success.

    python -m tools.audit

Exit status 0: all were looked up, and nothing is known. 1: something is known. 2: not all were looked up, as where
there is no internet. It needs pip-audit, and is no part of `make test`.
"""

import json
import subprocess
import sys
from typing import Any

from tools.lock import LOCK

COMMAND = ["--disable-pip", "--require-hashes", "--format", "json", "--progress-spinner", "off"]


def main() -> int:
    """What the command does: its exit status."""
    command = [sys.executable, "-m", "pip_audit", "-r", str(LOCK), *COMMAND]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    try:
        status, lines = verdict(json.loads(done.stdout))
    except ValueError:
        why = (done.stderr.strip().splitlines() or ["it said nothing"])[-1]
        status, lines = 2, [f"pip-audit gave no answer: {why} → it needs its database of vulnerabilities: the internet"]
    print("\n".join(lines))
    return status


def verdict(answer: dict[str, Any]) -> tuple[int, list[str]]:
    """Exit status and what to say, of the answer of pip-audit. Raises ValueError for an answer about nothing."""
    asked = answer["dependencies"]
    if not asked:
        raise ValueError("nothing was asked for")
    unknown = [one["name"] for one in asked if "skip_reason" in one]
    lines = [
        f"{one['name']} {one['version']}: {found['id']}, mended in {', '.join(found['fix_versions']) or 'no version'}"
        for one in asked
        for found in one.get("vulns", ())
    ]
    known = len(lines)
    if unknown:
        fix = "the database of vulnerabilities was not reached: it needs the internet"
        lines.append(f"{len(unknown)} of {len(asked)} packages could not be looked up ({unknown[0]}, …) → {fix}")
    if not lines:
        lines.append(f"{len(asked)} packages: no vulnerability is known")
    return (1 if known else 2 if unknown else 0), lines


if __name__ == "__main__":
    sys.exit(main())
