"""Monitor process: `journey-bandit monitor` as a child of the service, which goes on deciding meanwhile."""

import asyncio
import os
import sys
from collections.abc import Awaitable, Callable

from bandit.errors import RemoteError

LEDGER = "JOURNEY_BANDIT_LEDGER"
"""Environment variable by which the child is told the ledger: its address may have a password, which everybody on the
machine would see among a command's arguments.
"""

_REFUSED = 3
_SECONDS = 4 * 3600.0  # longer than the largest ledger takes: what hangs shall not keep others from their turn
_NICE = 19
_CHILD = f"import os, runpy; os.nice({_NICE}); runpy.run_module('journey_bandit', run_name='__main__')"


def monitoring(ledger: str) -> Callable[[str], Awaitable[bytes]] | None:
    """Asynchronous function from a stage to what `journey-bandit monitor --json` says of it, of the ledger at this
    address; None where other processes cannot read it. The child has the lowest priority, and ends with the task that
    waits for it. Raises RemoteError with what the command says if it prints no report.
    """
    if ledger.startswith("memory:"):
        return None

    async def report(stage: str) -> bytes:
        child = await asyncio.create_subprocess_exec(
            sys.executable,
            *("-P", "-c", _CHILD, "monitor", "--stage", stage, "--json"),  # -P: no packages of the folder it runs in
            stdin=asyncio.subprocess.DEVNULL,
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
        if child.returncode not in (0, _REFUSED):
            lines = problem.decode(errors="replace").strip().splitlines()
            raise RemoteError(lines[-1] if lines else f"it ended with status {child.returncode}")
        return said

    return report
