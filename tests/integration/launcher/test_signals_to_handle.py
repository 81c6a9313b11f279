"""A signal that a batch system sends ends a job in order, if ``signals_to_handle`` names it."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest
from torch.distributed.elastic.multiprocessing.api import SignalException

from llutil.launcher import LaunchConfig, elastic_launch
from tests.support.launches import launch

pytestmark = [pytest.mark.launch, pytest.mark.usefixtures("no_torch")]

SCRIPT = """
trap 'echo warned > "$1"; exit' USR1
echo $TORCHELASTIC_SIGNALS_TO_HANDLE > "$1.names"
kill -USR1 "$2"
while :; do sleep 0.05; done
"""
NAMES = "SIGTERM,SIGUSR1"


def default_of_usr1(agent: int, folder: str) -> None:
    """A rank that the agent's signal ends, since its own handler is the default one."""
    Path(folder, "handler").write_text(str(signal.getsignal(signal.SIGUSR1)))
    os.kill(agent, signal.SIGUSR1)
    signal.pause()


def test_ranks_get_the_signal_that_the_agent_got(tmp_path: Path) -> None:
    """torch's own launcher is no witness here: it loses a rank if the signal comes early."""
    seen = tmp_path / "seen"
    job = elastic_launch(LaunchConfig(1, 1, 1, signals_to_handle=NAMES), "bash")
    with pytest.raises(SignalException) as caught:
        job("-c", SCRIPT, "bash", str(seen), str(os.getpid()))
    assert caught.value.sigval is signal.SIGUSR1
    assert seen.read_text() == "warned\n"
    assert Path(f"{seen}.names").read_text() == f"{NAMES}\n"


def test_a_forked_rank_has_no_handler_of_the_agents(tmp_path: Path) -> None:
    with pytest.raises(SignalException) as caught:
        launch(
            default_of_usr1,
            os.getpid(),
            str(tmp_path),
            signals_to_handle=NAMES,
            start_method="fork",
        )
    assert caught.value.sigval is signal.SIGUSR1
    assert (tmp_path / "handler").read_text() == str(signal.SIG_DFL)
    assert signal.getsignal(signal.SIGUSR1) is signal.SIG_DFL
