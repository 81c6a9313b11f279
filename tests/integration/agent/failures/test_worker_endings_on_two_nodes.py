"""The same table on two nodes that meet through an etcd: rank 0 is on one, and rank 1 ends on the
other. Each way to end is that of a function or of a script here, by turns.

All rows are played first, some at a time, by a few pairs of agent processes, each pair one row
after the other.
"""

from __future__ import annotations

import os
import tempfile
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from llutil.std import Std
from tests.integration.agent.failures import worker_endings
from tests.integration.agent.failures.worker_endings import ABSENT, WAYS
from tests.support.etcd_servers import etcd
from tests.support.launches import hide_torch, is_alive
from tests.support.leftovers import MARK, nothing_left
from tests.support.node_pair import End, NodePair
from tests.support.torch_forks import TorchForks

pytestmark = [pytest.mark.etcd, pytest.mark.fault, pytest.mark.launch]

LIMIT = 60.0  # seconds on a loaded machine; what ranks wait for, and the interval, is far longer
_LEASE = 60  # seconds; nobody waits for its end
_PATIENCE = 300  # seconds of a rendezvous
_GRACE = 1.0  # seconds
_SIZE = 20_000_000  # bytes of a big result here; a bigger one goes no other way
_AT_A_TIME = 4

Case = tuple[str, str]
KINDS = ("function", "script")
CASES: list[Case] = [
    next((kind, how) for kind in (KINDS[number % 2], *KINDS) if way.reason(kind) is not ABSENT)
    for number, (how, way) in enumerate(WAYS.items())
]


class Plays:
    """What came of each row: how it ended on both nodes, and which of its processes were alive
    after that.
    """

    def __init__(self, folder: Path) -> None:
        self.ends: dict[Case, tuple[End, End]] = {}
        self.left: dict[Case, list[int]] = {}
        self.errors: dict[Case, Exception] = {}
        self._folder = folder
        hide_torch(folder)
        self._env = {name: os.environ[name] for name in (MARK, "TMPDIR")}
        self._env["PYTHONPATH"] = str(folder)

    def play(self, pair: NodePair, cases: Iterator[Case]) -> None:
        """Play what is left of ``cases``, until one is not over in time."""
        for case in cases:
            try:
                self._play(pair, case)
            except (TimeoutError, AssertionError) as error:
                self.errors[case] = error
                return

    def _play(self, pair: NodePair, case: Case) -> None:
        kind, how = case
        folder = self._folder / str(CASES.index(case))
        folder.mkdir()
        function = kind == "function"
        self.ends[case] = pair.launch(
            f"{worker_endings.__name__}:play" if function else worker_endings.__file__,
            *([kind, how, str(folder), _SIZE] if function else [how, str(folder)]),
            seconds=LIMIT,
            env=self._env,
            start_method="fork" if WAYS[how].torch else "spawn",
            shutdown_timeout=_GRACE,
            log_dir=str(folder / "logs"),
            tee=int(Std.ALL),
            rdzv_configs={"lease_ttl": _LEASE, "timeout": _PATIENCE},
        )
        pids = [int(path.read_text()) for path in folder.glob("*-[01]")]
        assert pids, f"nobody left a mark; {self.ends[case]}"
        self.left[case] = [pid for pid in pids if is_alive(pid)]


@pytest.fixture(scope="module")
def plays(torch_forks: TorchForks) -> Plays:
    """All rows, played."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="pairs-")))
        stack.enter_context(pytest.MonkeyPatch.context()).setenv("TMPDIR", str(folder))
        stack.enter_context(nothing_left(folder))
        server = stack.enter_context(etcd())
        plays = Plays(folder)
        cases = iter(CASES)
        threads = []
        for number in range(_AT_A_TIME):
            own = folder / f"pair-{number}"
            own.mkdir()
            pair = NodePair(torch_forks, own, str(server.endpoint))
            stack.callback(pair.close)
            threads.append(threading.Thread(target=plays.play, args=(pair, cases)))
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    return plays


@pytest.mark.parametrize(("kind", "how"), CASES)
def test_both_nodes_end_with_the_right_verdict_and_nothing_is_left(
    plays: Plays, kind: str, how: str
) -> None:
    case = kind, how
    if case in plays.errors:
        raise plays.errors[case]
    first, second = plays.ends[case]
    reason = WAYS[how].reason(kind)
    if reason is None:
        assert (first.kind, second.kind) == ("values", "values"), (first.text, second.text)
        value = _SIZE if how == "a big result" else "value"
        wanted = ({0: "peer"}, {1: value}) if kind == "function" else ({0: None}, {1: None})
        assert (first.values, second.values) == wanted
    else:
        for end in (first, second):
            assert end.kind == "WorkersFailed"
            assert f"rank {reason}" in end.text
    assert second.seconds >= (_GRACE if WAYS[how].grace else 0)
    assert first.children == second.children == plays.left[case] == []
