"""Child commands: `journey-bandit monitor` and `journey-bandit export` as children of a service, which goes on deciding
meanwhile.
"""

import asyncio
import os
import sys
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path

from api.exports.log_exports import Exporter, ExportOrder
from api.times import time_of
from bandit.errors import RemoteError, masked

LEDGER = "JOURNEY_BANDIT_LEDGER"
"""Environment variable by which the child is told the ledger: its address may have a password, which everybody on the
machine would see among a command's arguments.
"""

_REFUSED = 3
_SECONDS = 4 * 3600.0  # longer than the largest ledger takes: what hangs shall not keep others from their turn
_NICE = 19
_ERRORS = ("error: ", "Error: ")  # how our commands and click begin a reason
_CHILD = f"""
import os, runpy, sys, threading
def watch():
    os.read(0, 1)
    os._exit(1)
threading.Thread(target=watch, daemon=True).start()
os.nice({_NICE})
runpy.run_module('journey_bandit', run_name='__main__')
"""  # its standard input ends with the service, also with one that is killed


def monitoring(ledger: str) -> Callable[[str], Awaitable[bytes]] | None:
    """Asynchronous function from a stage to what `journey-bandit monitor --json` says of it, of the ledger at this
    address; None where other processes cannot read it. The child has the lowest priority, and ends with the task that
    waits for it. Raises RemoteError with what the command says if it prints no report.
    """
    if _within(ledger):
        return None

    async def report(stage: str) -> bytes:
        return await _said(ledger, ["monitor", "--stage", stage, "--json"], also=_REFUSED)

    return report


def exporting(ledger: str) -> Exporter | None:
    """Asynchronous function that writes an export with `journey-bandit export`, of the ledger at this address; None
    where other processes cannot read it. The child is as that of `monitoring`. Raises RemoteError with what the command
    says if it fails, such as which extra is missing.
    """
    if _within(ledger):
        return None

    async def export(order: ExportOrder, folder: Path) -> None:
        options = [f"--stage={order.stage}", f"--with={','.join(order.tables)}"]
        bounds = (("since", order.since), ("until", order.until))
        options += [f"--{name}={_time(at)}" for name, at in bounds if at is not None]
        await _said(ledger, ["export", *options, "--", str(folder)])

    return export


def _within(ledger: str) -> bool:
    """Whether the ledger is inside the process of its service."""
    return ledger.startswith("memory:")


def _time(microseconds: int) -> str:
    return time_of(microseconds).replace(tzinfo=None).isoformat(timespec="microseconds") + "Z"


async def _said(ledger: str, command: Sequence[str], also: int = 0) -> bytes:
    """Standard output of a command that ended with status 0, or with the one that is `also` an answer. Raises
    RemoteError with the reason that it gave for another one.
    """
    ours, ends = os.pipe()
    try:
        child = await asyncio.create_subprocess_exec(
            sys.executable,
            *("-P", "-c", _CHILD, *command),  # -P: no packages of the folder it runs in
            stdin=ours,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env={**os.environ, LEDGER: ledger},
            start_new_session=True,  # Ctrl-C is for the service alone
        )
        try:
            async with asyncio.timeout(_SECONDS):
                said, problem = await child.communicate()
        except TimeoutError:
            raise RemoteError(f"it was not done after {_SECONDS / 3600:g} h") from None
        finally:
            if child.returncode is None:
                child.kill()
                await child.wait()
    finally:
        os.close(ours)
        os.close(ends)
    if child.returncode not in (0, also):
        raise RemoteError(_reason(problem.decode(errors="replace")) or f"it ended with status {child.returncode}")
    return said


def _reason(problem: str) -> str:
    """Reason that a command gave, in one line: from its last line that begins with `error: ` on, or the last line where
    none does. Parts of addresses that may hold a password are masked.
    """
    lines = problem.strip().splitlines()
    begins = [i for i, text in enumerate(lines) if text.startswith(_ERRORS)]
    said = " ".join(text.strip() for text in lines[begins[-1] if begins else -1 :])
    return masked(next((said.removeprefix(start) for start in _ERRORS if said.startswith(start)), said))
