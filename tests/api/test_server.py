"""The server's process: one port, one service, also when two start at the same moment, before either listens; and
what it does about stalls of its own.
"""

import gc
import socket

import pytest
import threadpoolctl

from api.server import claimed, free_port, lean
from bandit.errors import RemoteError


def test_a_claimed_port_is_refused_to_a_second_service_although_nobody_listens_yet() -> None:
    with claimed("127.0.0.1", 0) as (_, port):
        with (
            pytest.raises(RemoteError, match=r"cannot be served: .* holds that port; --port \d+ is free"),
            claimed("127.0.0.1", port),
        ):
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


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_a_free_port_is_not_one_that_systems_give_away(host: str) -> None:
    """A server that asked for any port, or a connection of somebody, must not take it before its server listens."""
    assert free_port(host) < 32_768
    with claimed("127.0.0.1", 0) as (_, port):
        assert port < 32_768


def test_a_port_that_somebody_holds_is_not_free(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", free_port("127.0.0.1"))) as held:
        taken = held.getsockname()[1]
        monkeypatch.setattr("api.server._UNASSIGNED", range(taken, taken + 100))
        assert free_port("127.0.0.1") != taken
        monkeypatch.setattr("api.server._UNASSIGNED", range(taken, taken + 1))
        with pytest.raises(RemoteError, match="no free port"):
            free_port("127.0.0.1")


def test_a_service_runs_with_one_blas_thread_and_does_not_collect_what_it_was_built_of() -> None:
    def threads() -> set[int]:
        return {library["num_threads"] for library in threadpoolctl.threadpool_info()}

    gc.unfreeze()  # what `pytest_collection_finish` froze
    with threadpoolctl.threadpool_limits(2):  # whatever this process was started with
        before = threads(), gc.get_threshold(), gc.get_freeze_count()
        with lean():
            assert threads() == {1}
            assert gc.get_freeze_count() > 10_000
            assert gc.get_threshold() > (10_000, 10, 10)
        assert (threads(), gc.get_threshold(), gc.get_freeze_count()) == before
    gc.freeze()
