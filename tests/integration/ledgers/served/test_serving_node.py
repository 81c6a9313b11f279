"""Which node serves the ledger, and what it says if none can or several would."""

from __future__ import annotations

import errno
import logging
import socket
import threading
from collections.abc import Iterator

import pytest
from torch.distributed.elastic.rendezvous import RendezvousParameters

from llutil.backends.endpoints import Endpoint
from llutil.errors import ConfigError, RendezvousError
from llutil.launcher.launch_agent import LaunchConfig, launch_agent
from llutil.ledgers.served.config import ServedConfig
from llutil.ledgers.served.job_server import JobServer
from llutil.ledgers.served.server import LedgerServer
from llutil.ledgers.served.serving_node import start_server
from llutil.ledgers.served.standby_server import StandbyServer
from llutil.rendezvous import build_handler, torchrun_entry_points
from tests.support.ports import free_ports
from tests.support.torch_agents import until

FOREIGN = "192.0.2.1"  # of no machine (RFC 5737)


@pytest.fixture
def port() -> int:
    (port,) = free_ports(1)
    return port


def _config(host: str, port: int) -> ServedConfig:
    return ServedConfig(endpoint=Endpoint(host, port), run_id="job")


def _job(port: int, **configs: object) -> LaunchConfig:
    return LaunchConfig(
        min_nodes=1,
        max_nodes=2,
        nproc_per_node=1,
        run_id="job",
        rdzv_backend="served",
        rdzv_endpoint=f"127.0.0.1:{port}",
        rdzv_configs=configs,
    )


def _start(
    host: str, port: int, *, serves: bool | None = None, several: bool = True
) -> JobServer | None:
    return start_server(_config(host, port), serves=serves, several=several)


@pytest.fixture
def names(monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, list[str]]]:
    """The addresses of names that no name server knows."""
    names: dict[str, list[str]] = {}
    look_up = socket.getaddrinfo

    def known(host: str, port: int, *rest: int, **more: int) -> object:
        return [
            one for each in names.get(host, [host]) for one in look_up(each, port, *rest, **more)
        ]

    monkeypatch.setattr(socket, "getaddrinfo", known)
    return names  # type: ignore[return-value]


def test_the_node_with_the_endpoints_address_serves_and_no_other(port: int) -> None:
    assert _start(FOREIGN, port) is None
    assert _start("127.0.0.1", port, serves=False) is None
    server = _start("127.0.0.1", port)
    assert isinstance(server, LedgerServer)
    assert server.port == port
    server.close()


def test_of_several_agents_of_a_machine_the_first_one_serves_and_another_once_that_has_ended(
    port: int, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    first, second, third = (_start("127.0.0.1", port) for _ in range(3))
    assert first is not None
    assert second is not None
    assert third is not None
    assert "another agent of this machine serves" in caplog.text
    third.settle()  # it is in a round
    first.close()
    until(lambda: f"serves the job's ledger at 127.0.0.1:{port} from now on" in caplog.text)
    assert (len(second.fds()), third.fds()) == (1, set())
    third.close()
    second.close()
    socket.create_server(("127.0.0.1", port)).close()


def test_an_agent_that_stands_by_says_why_it_cannot_serve(
    port: int, caplog: pytest.LogCaptureFixture
) -> None:
    def start() -> LedgerServer:
        raise OSError(errno.EADDRNOTAVAIL, "no such address any more")

    server = StandbyServer(start, f"127.0.0.1:{port}")
    until(lambda: f"cannot serve the job's ledger at 127.0.0.1:{port}" in caplog.text)
    assert "no such address any more" in caplog.text
    server.close()


def test_an_agent_that_finds_the_port_taken_by_who_is_just_ending_serves_its_job(
    port: int, caplog: pytest.LogCaptureFixture
) -> None:
    ending = socket.create_server(("127.0.0.1", port))

    def end() -> None:
        until(lambda: "another agent of this machine serves" in caplog.text)
        ending.close()

    caplog.set_level(logging.INFO)
    ends = threading.Thread(target=end)
    ends.start()
    assert launch_agent(_job(port, timeout=30, last_call_timeout=0), str, ["done"]) == {0: "done"}
    ends.join()
    socket.create_server(("127.0.0.1", port)).close()


def test_a_loopback_address_for_several_nodes_is_warned_of(
    port: int, caplog: pytest.LogCaptureFixture
) -> None:
    for several in (False, True):
        server = _start("localhost", port, several=several)
        assert server is not None
        server.close()
        assert ("only agents of this machine reach it" in caplog.text) is several


@pytest.mark.parametrize(
    ("host", "why"), [("127.0.0.1", "Address already in use; choose"), (FOREIGN, "set local_addr")]
)
def test_a_node_that_has_to_serve_and_cannot_says_why(port: int, host: str, why: str) -> None:
    with (
        socket.create_server(("127.0.0.1", port)),
        pytest.raises(RendezvousError, match=f"cannot serve the job's ledger at .*{why}"),
    ):
        _start(host, port, serves=True)


def test_a_port_of_the_kernels_choice_is_for_who_is_told_to_serve() -> None:
    with pytest.raises(ConfigError, match="wanted a port, which the other nodes know too"):
        _start("127.0.0.1", 0)
    server = _start("127.0.0.1", 0, serves=True)
    assert isinstance(server, LedgerServer)
    assert server.port > 0
    server.close()


def test_a_name_of_several_machines_is_refused_since_each_of_them_would_serve(
    names: dict[str, list[str]], port: int
) -> None:
    names["nodes"] = ["127.0.0.1", FOREIGN]
    with pytest.raises(ConfigError, match=rf"\(127.0.0.1\) and of others \({FOREIGN}\)"):
        _start("nodes", port)


def test_a_name_that_leads_to_loopback_on_its_own_machine_is_served_at_all_addresses(
    names: dict[str, list[str]], port: int
) -> None:
    names["me"] = ["127.0.1.1"]  # as Debian writes it into /etc/hosts
    server = _start("me", port)
    assert server is not None
    for address in ("127.0.1.1", "127.0.0.1"):
        socket.create_connection((address, port), 30).close()
    server.close()


def test_an_endpoint_that_is_no_nodes_address_is_said_after_a_while(port: int) -> None:
    with pytest.raises(RendezvousError, match="nobody serves a ledger there"):
        launch_agent(_job(port, serves=False, timeout=2), print, [])


def _fails(*_: object) -> None:
    raise ConfigError("something else is wrong")


def test_an_agent_that_fails_after_it_has_begun_to_serve_gives_the_port_back(
    port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(build_handler, "build_driver", _fails)
    with pytest.raises(ConfigError, match="something else"):
        launch_agent(_job(port), print, [])
    socket.create_server(("127.0.0.1", port)).close()


def _parameters(port: int) -> RendezvousParameters:
    return RendezvousParameters(
        backend="served", endpoint=f"127.0.0.1:{port}", run_id="job", min_nodes=1, max_nodes=2
    )


def test_a_handler_of_torchruns_that_fails_or_is_dropped_gives_the_port_back(
    port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    make = torchrun_entry_points.served()
    handler = make(_parameters(port))
    with pytest.raises(OSError, match="in use"):
        socket.create_server(("127.0.0.1", port))
    del handler
    socket.create_server(("127.0.0.1", port)).close()
    monkeypatch.setattr(build_handler, "build_driver", _fails)
    with pytest.raises(ConfigError, match="something else"):
        make(_parameters(port))
    socket.create_server(("127.0.0.1", port)).close()
