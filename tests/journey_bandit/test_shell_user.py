"""Who runs a command has a name where the system knows only the number."""

import getpass
import os
import pwd

import pytest

from journey_bandit.shell_user import shell_user


def test_a_user_without_a_name_is_called_by_the_number(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("LOGNAME", "USER", "LNAME", "USERNAME"):
        monkeypatch.delenv(name, raising=False)
    assert shell_user() == pwd.getpwuid(os.getuid()).pw_name
    nobody = max(one.pw_uid for one in pwd.getpwall() if one.pw_uid < 60_000) + 1
    monkeypatch.setattr(os, "getuid", lambda: nobody)
    with pytest.raises((KeyError, OSError)):
        getpass.getuser()
    assert shell_user() == f"uid {nobody}"
