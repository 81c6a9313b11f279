"""torch's contract of a rendezvous handler: closed, shut down, dropped, used by several threads,
forked.
"""

from __future__ import annotations

import gc
import os
import threading
import traceback
import weakref
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import pytest
from torch.distributed.elastic.rendezvous import (
    RendezvousClosedError,
    RendezvousConnectionError,
    RendezvousHandler,
    RendezvousInfo,
    RendezvousStateError,
    RendezvousStoreInfo,
)

from llutil.rendezvous.driver.round_store import SHARING_OFF
from llutil.rendezvous.handlers import node_part
from llutil.rendezvous.handlers.ledger_handler import LedgerRendezvousHandler
from tests.support.forks import fork
from tests.support.torch_agents import SOON, MemoryHandlers, until


@pytest.fixture
def memory() -> Iterator[MemoryHandlers]:
    """After each test no thread, no lease and no member record is left."""
    gc.collect()
    threads = set(threading.enumerate())
    memory = MemoryHandlers()
    yield memory
    gc.collect()
    for thread in set(threading.enumerate()) - threads:
        thread.join(10)
        assert not thread.is_alive()
    assert memory.members() == []
    memory.ledger.close()
    assert not memory.store.ledgers


def in_child(act: Callable[[], None]) -> bool:
    """Whether ``act`` raises nothing in a forked child."""
    pid = fork()
    if pid == 0:
        try:
            act()
        except BaseException:
            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0


def met(*handlers: RendezvousHandler) -> list[RendezvousInfo]:
    """Let them all meet in one round."""
    with ThreadPoolExecutor(len(handlers)) as pool:
        return list(pool.map(lambda one: one.next_rendezvous(), handlers))


def shut_down(handlers: list[LedgerRendezvousHandler]) -> None:
    """Shut them down in one thread: the one that serves the round last."""
    handlers.sort(key=lambda one: one._part.running[0].by == one._part.running[1])
    for handler in handlers:
        assert handler.shutdown()


def test_a_closed_handler_says_so_and_meets_nobody_any_more(memory: MemoryHandlers) -> None:
    handler = memory.handler("a", 1, 1)
    met(handler)
    assert not handler.is_closed()
    handler.set_closed()
    assert handler.is_closed()
    with pytest.raises(RendezvousClosedError, match="run 'run': the rendezvous was closed"):
        handler.next_rendezvous()
    handler.shutdown()


def test_who_closes_ends_the_others_too_and_says_why(memory: MemoryHandlers) -> None:
    one, other = memory.handler("a", 2, 2), memory.handler("b", 2, 2)
    met(one, other)
    try:
        raise ValueError("no such digit")
    except ValueError:
        one.set_closed()
    until(other.num_nodes_waiting)
    with pytest.raises(RendezvousClosedError, match=r"closed: .*ValueError: no such digit"):
        other.next_rendezvous()
    assert other.is_closed()
    assert one.shutdown()
    assert other.shutdown()
    assert memory.marker()["cause"] == "stopped"


def test_a_handler_that_has_met_nobody_can_close_the_job_of_others(memory: MemoryHandlers) -> None:
    one, other = memory.handler("a", 1, 1), memory.handler("b", 1, 1)
    met(one)
    other.set_closed()
    until(one.is_closed)
    with pytest.raises(RendezvousClosedError):
        one.next_rendezvous()
    assert other.is_closed()
    with pytest.raises(RendezvousClosedError):
        other.next_rendezvous()
    assert one.shutdown()
    assert other.shutdown()


def test_a_handler_that_was_shut_down_raises_torchs_own_error(memory: MemoryHandlers) -> None:
    handler = memory.handler("a", 1, 1)
    met(handler)
    assert handler.shutdown()
    assert handler.is_closed()
    assert handler.num_nodes_waiting() == 0
    with pytest.raises(RendezvousClosedError, match="run 'run': the rendezvous was shut down"):
        handler.next_rendezvous()
    handler.set_closed()
    assert handler.shutdown()
    assert handler.is_closed()


def test_a_handler_that_never_met_anybody_can_be_shut_down(memory: MemoryHandlers) -> None:
    handler = memory.handler("a", 1, 1)
    assert handler.shutdown()
    assert handler.is_closed()
    with pytest.raises(RendezvousClosedError):
        handler.next_rendezvous()
    assert handler.shutdown()


@pytest.mark.parametrize("end", ["shutdown", "set_closed"])
def test_another_thread_ends_the_wait_for_a_round(memory: MemoryHandlers, end: str) -> None:
    handler = memory.handler("a", 2, 2)
    with ThreadPoolExecutor(1) as pool:
        waits = pool.submit(handler.next_rendezvous)
        until(memory.members)
        assert not handler.is_closed()
        assert handler.num_nodes_waiting() == 0
        getattr(handler, end)()
        assert handler.is_closed()
        with pytest.raises(RendezvousClosedError):
            waits.result(20)
    assert handler.shutdown()


def test_all_ends_with_a_handler_that_is_dropped(memory: MemoryHandlers) -> None:
    one, other = (memory.handler(name, 1, 2, last_call=30.0) for name in "ab")
    infos = met(one, other)
    del one
    until(lambda: memory.members() == ["b"])
    until(other.num_nodes_waiting)
    assert met(other)[0].world_size == 1
    assert other.shutdown()
    del infos


def test_all_ends_with_a_handler_that_another_thread_collects(memory: MemoryHandlers) -> None:
    handler: Any = memory.handler("a", 1, 1)
    met(handler)
    handler.itself = handler
    del handler
    assert memory.members() == ["a"]
    collector = threading.Thread(target=gc.collect)
    collector.start()
    collector.join(20)
    until(lambda: not memory.members())


def test_a_store_that_is_kept_does_not_keep_the_handler(memory: MemoryHandlers) -> None:
    handler = memory.handler("a", 1, 1)
    (info,) = met(handler)
    store = info.store
    del handler, info
    until(lambda: not memory.members())
    assert store is not None


def test_the_error_around_a_handler_is_known_until_its_shutdown(memory: MemoryHandlers) -> None:
    """Else an error of the agent's that comes to lie at its address would be taken for it."""

    class Outer(Exception):
        pass

    try:
        raise Outer
    except Outer as outer:
        seen = weakref.ref(outer)
        handler = memory.handler("a", 1, 1)
    met(handler)
    assert seen() is not None
    assert handler.shutdown()
    assert seen() is None


def test_a_forked_child_has_no_part_in_it(memory: MemoryHandlers) -> None:
    handler = memory.handler("a", 1, 1)
    met(handler)

    def child() -> None:
        with pytest.raises(RendezvousStateError, match="forked from it, is not"):
            handler.next_rendezvous()
        handler.set_closed()
        assert handler.shutdown()
        handler._finalizer()  # as when the child ends

    assert in_child(child)
    assert memory.members() == ["a"]
    assert handler.num_nodes_waiting() == 0
    assert not handler.is_closed()
    assert handler.shutdown()


def test_a_fork_from_a_handler_that_met_nobody_is_a_handler(memory: MemoryHandlers) -> None:
    handler = memory.handler("a", 1, 1)

    def child() -> None:
        assert handler.next_rendezvous().world_size == 1
        assert handler.shutdown()

    assert in_child(child)
    assert handler.shutdown()


def test_one_thread_can_shut_all_handlers_down(memory: MemoryHandlers) -> None:
    handlers = [memory.handler(name, 2, 2) for name in "ab"]
    met(*handlers)
    shut_down(handlers)
    assert memory.marker()["cause"] == "succeeded"


def test_rank_0_places_the_ranks_store_where_torchs_variable_asks_for_it(
    memory: MemoryHandlers, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(SHARING_OFF, "1")
    handlers = [memory.handler(name, 2, 2) for name in "ab"]
    places = [one.bootstrap_store_info for one in met(*handlers)]
    assert places[0] == places[1]
    running = handlers[0]._part.running
    assert places[0] != RendezvousStoreInfo(running[0].host, running[0].port)
    for handler in handlers:
        assert not handler.use_agent_store
    monkeypatch.delenv(SHARING_OFF)
    shut_down(handlers)


@pytest.fixture
def waits_for_place(
    memory: MemoryHandlers, monkeypatch: pytest.MonkeyPatch
) -> Iterator[tuple[LedgerRendezvousHandler, Future[RendezvousInfo]]]:
    """The first node of a round, without torch's variable, and the wait of the second, which has
    it: the first one never tells what the second one waits for.
    """
    first = memory.handler("a", 2, 2)
    monkeypatch.setenv(SHARING_OFF, "1")
    second = memory.handler("b", 2, 2)
    monkeypatch.delenv(SHARING_OFF)
    with ThreadPoolExecutor(2) as pool:
        begins = pool.submit(first.next_rendezvous)
        until(memory.members)
        waits = pool.submit(second.next_rendezvous)
        assert begins.result(SOON).rank == 0
        yield first, waits
        assert second.shutdown()
        assert first.shutdown()


def test_a_place_of_the_ranks_store_that_nobody_tells_is_an_error_in_bounded_time(
    monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    monkeypatch.setattr(node_part, "_RANKS_STORE_PLACED", 0.3)
    _, waits = request.getfixturevalue("waits_for_place")
    with pytest.raises(RendezvousConnectionError, match=f"{SHARING_OFF} is 1 on this node"):
        waits.result(SOON)


def test_the_rounds_end_ends_the_wait_for_the_place_of_the_ranks_store(
    waits_for_place: tuple[LedgerRendezvousHandler, Future[RendezvousInfo]],
) -> None:
    first, waits = waits_for_place
    first.set_closed()
    with pytest.raises(RendezvousClosedError, match="the rendezvous was closed"):
        waits.result(SOON)
