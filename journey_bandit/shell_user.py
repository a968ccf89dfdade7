"""Name of the user whose shell runs a command: the default of every --who."""

import getpass
import os


def shell_user() -> str:
    """Name of the user of this shell; "uid 1000" where the user has a number without a name, as in many containers."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # OSError since Python 3.13
        return f"uid {os.getuid()}"
