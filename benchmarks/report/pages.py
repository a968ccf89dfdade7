"""Page refresh: run the commands of a page in `docs/` again, and put what they print where their output stood.

    python -m benchmarks.report.pages docs/tutorials/simulate_in_ten_minutes.md

Each block of `sh` that a block of `text` follows is run by sh, all blocks of a page in one new folder. Wall-clock times
that a command prints are as noisy as the machine.
"""

import argparse
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

_BLOCK = re.compile(r"(```sh\n(?P<commands>(?:(?!```).)*)```\n)```text\n.*?```\n", re.DOTALL)
_COLUMNS = "114"


def again(page: str, folder: Path) -> str:
    """Text of a page with every output made anew, its commands run in `folder`. Raises CalledProcessError if a command
    fails.
    """
    return _BLOCK.sub(lambda found: f"{found[1]}```text\n{_printed(found['commands'], folder)}```\n", page)


def _printed(commands: str, folder: Path) -> str:
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    env = os.environ | {"PATH": path, "COLUMNS": _COLUMNS, "OPENBLAS_NUM_THREADS": "1"}
    print(commands, end="", file=sys.stderr, flush=True)
    done = subprocess.run(
        ["sh", "-ec", commands], cwd=folder, env=env, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, check=True
    )
    lines = [line.rstrip() for line in done.stdout.decode().splitlines()]
    return "".join(f"{line}\n" for line in lines if line)


def main() -> None:
    """Rewrite the pages that the arguments name, in place."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pages", nargs="+", type=Path)
    for page in parser.parse_args().pages:
        with tempfile.TemporaryDirectory() as folder:
            page.write_text(again(page.read_text("utf-8"), Path(folder)), "utf-8")


if __name__ == "__main__":
    main()
