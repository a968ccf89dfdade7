"""One port, one service: also when two start at the same moment, before either listens."""

import pytest

from api.server import claimed
from bandit.errors import RemoteError


def test_a_claimed_port_is_refused_to_a_second_service_although_nobody_listens_yet() -> None:
    with claimed("127.0.0.1", 0) as (_, port):
        with pytest.raises(RemoteError, match="is being served by another process"), claimed("127.0.0.1", port):
            raise AssertionError("two services would share the port")
        with claimed("127.0.0.1", 0) as (_, other):
            assert other != port
    with claimed("127.0.0.1", port) as (_, again):
        assert again == port


def test_a_name_becomes_an_address() -> None:
    with claimed("localhost", 0) as (address, _):
        assert address in {"127.0.0.1", "::1"}


def test_a_host_that_is_not_ours_is_named_with_a_fix() -> None:
    with pytest.raises(RemoteError, match="--host an address of this machine"), claimed("192.0.2.1", 0):
        raise AssertionError("that address is nobody's")
