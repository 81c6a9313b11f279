"""The end of a rank is the end of a Python program, and its beginning is that of one, too."""

from __future__ import annotations

import gzip
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError

from llutil.agent.hang import take_stacks
from llutil.launcher import warm_workers
from tests.integration.agent.worker_side import unfinished_programs as programs
from tests.support.launches import launch

pytestmark = pytest.mark.launch

METHODS = ["spawn", "fork", "forkserver"]
ROOT = Path(__file__).parents[4]


@pytest.fixture(params=METHODS)
def run(request: pytest.FixtureRequest) -> Callable[..., dict[int, Any]]:
    """Launches by each start method; those from the fork server share one within a test."""

    def launched(entrypoint: Any, *args: Any, **fields: Any) -> dict[int, Any]:
        return launch(entrypoint, *args, start_method=request.param, **fields)

    return launched


def finished(folder: Path) -> str:
    """What the file in ``folder`` holds."""
    packed = folder / "file.gz"
    if packed.exists():
        return gzip.decompress(packed.read_bytes()).decode().strip()
    file = folder / "file"
    return file.read_text().strip() if file.exists() else "nothing"


def folders(tmp_path: Path) -> dict[str, Path]:
    found = {name: tmp_path / name for name in programs.PROGRAMS}
    for folder in found.values():
        folder.mkdir()
    return found


def test_what_a_function_has_begun_is_finished_after_it_returned(
    tmp_path: Path, run: Callable[..., dict[int, Any]]
) -> None:
    places = folders(tmp_path)
    with warm_workers():
        for name, program in programs.PROGRAMS.items():
            assert run(program, str(places[name])) == {0: "returned"}, name
    assert {name: finished(folder) for name, folder in places.items()} == dict.fromkeys(
        places, "done"
    )
    assert not list(tmp_path.glob("*/temporary-*"))


@pytest.mark.usefixtures("no_torch")
def test_a_signal_handler_that_raises_meanwhile_ends_one_step_of_it_as_in_plain_python(
    tmp_path: Path, run: Callable[..., dict[int, Any]], capfd: pytest.CaptureFixture[str]
) -> None:
    ended: dict[str, Any] = {}
    with warm_workers():
        for during in ("threads", "functions", "files"):
            folder = tmp_path / during
            folder.mkdir()
            assert run(programs.stopped_at_its_end, str(folder), during) == {0: "returned"}
            ended[during] = finished(folder), (folder / "function").exists()
    assert ended == dict.fromkeys(ended, ("done", True))
    assert "Exception ignored in: <module 'threading' from" in capfd.readouterr().err


@pytest.mark.usefixtures("no_torch")
def test_what_raises_in_our_own_code_does_not_cut_off_the_programs_end(
    tmp_path: Path, run: Callable[..., dict[int, Any]]
) -> None:
    with pytest.raises(ChildFailedError, match="exit code 143"):
        run(programs.stopped_at_its_end, str(tmp_path), "value")
    assert finished(tmp_path) == "done"
    assert (tmp_path / "function").exists()


@pytest.mark.usefixtures("no_torch")
@pytest.mark.parametrize("as_module", [False, True], ids=["script", "module"])
def test_what_a_script_has_begun_is_finished(
    tmp_path: Path, run: Callable[..., dict[int, Any]], as_module: bool, monkeypatch: Any
) -> None:
    code = (
        "import sys\n"
        f"sys.path.append({str(ROOT)!r})\n"
        "from tests.integration.agent.worker_side.unfinished_programs import PROGRAMS\n"
        "for folder in sys.argv[1:]:\n"
        "    PROGRAMS[folder.rpartition('/')[2]](folder)\n"
    )
    (tmp_path / "unfinished_script.py").write_text(code)
    places = folders(tmp_path)
    monkeypatch.chdir(tmp_path)
    entrypoint = "-m unfinished_script" if as_module else str(tmp_path / "unfinished_script.py")
    assert run(entrypoint, *map(str, places.values())) == {0: None}
    assert {name: finished(folder) for name, folder in places.items()} == dict.fromkeys(
        places, "done"
    )


def test_a_file_of_the_parent_is_written_once(tmp_path: Path) -> None:
    path = tmp_path / "parents"
    with path.open("w") as file:
        file.write("once")  # in the buffer that a fork inherits
        with ExitStack():
            launch(programs.open_file, str(tmp_path), start_method="fork")
    assert path.read_text() == "once"


@pytest.mark.usefixtures("no_torch")
def test_a_forked_child_of_a_rank_speaks_for_itself_alone(
    run: Callable[..., dict[int, Any]],
) -> None:
    with warm_workers():
        assert run(programs.forked_child_raises) == {0: "parent of a child with status 1"}
        assert run(programs.forked_child_returns) == {0: "parent of a child with status 0"}


def test_ranks_that_set_no_seed_draw_different_numbers(
    run: Callable[..., dict[int, Any]],
) -> None:
    # hypothesis has seeded numpy's in the process of tests.
    np.random.set_bit_generator(np.random.MT19937())
    with warm_workers():
        drawn = [value for n in (2, 1) for value in run(programs.drawn, nproc=n).values()]
    for one in zip(*drawn, strict=True):
        assert len({str(value) for value in one}) == len(drawn), one


def test_a_seed_that_the_caller_set_is_kept_by_a_fork() -> None:
    before = torch.get_rng_state(), np.random.get_state()
    try:
        torch.manual_seed(7)
        np.random.seed(7)
        one, other = launch(programs.drawn, nproc=2, start_method="fork").values()
    finally:
        torch.set_rng_state(before[0])
        np.random.set_state(before[1])
    assert one[:4] == other[:4]
    assert one[0] == 7


@pytest.mark.usefixtures("no_torch")
def test_a_file_that_cannot_be_closed_at_the_end_is_told(
    run: Callable[..., dict[int, Any]], capfd: pytest.CaptureFixture[str]
) -> None:
    assert run(programs.file_on_a_full_disk) == {0: "returned"}
    told = capfd.readouterr().err
    assert "/dev/full" in told
    assert "No space left on device" in told


@pytest.mark.usefixtures("no_torch")
def test_a_rank_that_has_returned_and_does_not_end_is_no_silent_success(
    run: Callable[..., dict[int, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(take_stacks, "_SIGNAL_TIME", 60.0)  # for a rank that writes it late
    with pytest.raises(ChildFailedError) as raised:
        run(programs.never_ends, exit_timeout=1.5)
    text = str(raised.value)
    assert "exit_timeout" in text
    assert "1.5" in text
    assert "out-of-memory" not in text
    assert "it was doing this:" in text
    assert "in wait" in text or "wait (" in text  # as faulthandler, or py-spy, writes it
