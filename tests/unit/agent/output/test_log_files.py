"""Log folders: torch's layout, streams by rank, and a clear word when nothing can be written."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from torch.distributed.elastic.multiprocessing.api import DefaultLogsSpecs
from torch.distributed.elastic.multiprocessing.api import Std as TorchStd

from llutil.agent.output.log_files import (
    LogFolder,
    LogOptions,
    Route,
    last_lines,
    open_log,
    write_all,
)
from llutil.errors import ConfigError
from llutil.std import Std, StdOption


def test_the_layout_is_torchs(tmp_path: Path) -> None:
    folder = LogFolder(LogOptions(base=str(tmp_path), redirects=Std.ALL), "my-run")
    assert folder.path.parent == tmp_path
    assert folder.path.name.startswith("my-run_")
    attempt = folder.attempt(2, 1)
    assert attempt == folder.path / "attempt_2" / "1"
    assert attempt.is_dir()
    assert folder.routes(attempt, 1) == (
        Route(attempt / "stdout.log", console=False),
        Route(attempt / "stderr.log", console=False),
    )


@pytest.mark.parametrize(
    ("redirects", "tee", "stdout", "stderr"),
    [
        (Std.NONE, Std.NONE, "console", "console"),
        (Std.OUT, Std.NONE, "file", "console"),
        (Std.ERR, Std.NONE, "console", "file"),
        (Std.ALL, Std.NONE, "file", "file"),
        (Std.NONE, Std.OUT, "both", "console"),
        (Std.NONE, Std.ALL, "both", "both"),
        (Std.ALL, Std.ERR, "file", "both"),
        (Std.OUT, Std.ERR, "file", "both"),
        ({0: Std.ALL}, Std.NONE, "console", "console"),
        ({1: Std.ALL}, {1: Std.OUT}, "both", "file"),
        (2, 1, "both", "file"),  # as numbers, which is how they travel
    ],
)
def test_each_stream_of_a_rank_goes_where_redirects_and_tee_say(
    tmp_path: Path, redirects: Std, tee: Std, stdout: str, stderr: str
) -> None:
    folder = LogFolder(LogOptions(str(tmp_path), redirects, tee), "run")
    names = {(False, True): "console", (True, False): "file", (True, True): "both"}
    found = [
        names[route.file is not None, route.console]
        for route in folder.routes(folder.attempt(0, 1), 1)
    ]
    assert found == [stdout, stderr]


@pytest.mark.parametrize(
    ("redirects", "tee", "stdout", "stderr"),
    [
        (Std.NONE, Std.NONE, "nowhere", "nowhere"),
        (Std.OUT, Std.ERR, "file", "file"),
        (Std.ALL, Std.ALL, "file", "file"),
    ],
)
def test_a_rank_that_is_not_shown_reaches_its_files_alone(
    tmp_path: Path, redirects: Std, tee: Std, stdout: str, stderr: str
) -> None:
    folder = LogFolder(LogOptions(str(tmp_path), redirects, tee, frozenset({0, 2})), "run")
    shown = LogFolder(LogOptions(str(tmp_path), redirects, tee), "run")
    names = {(False, False): "nowhere", (True, False): "file"}
    hidden = folder.routes(folder.attempt(0, 1), 1)
    assert [names[route.file is not None, route.console] for route in hidden] == [stdout, stderr]
    for rank in (0, 2):
        found = folder.routes(Path("/x"), rank)
        assert found == shown.routes(Path("/x"), rank)


def test_the_end_of_a_log_file_is_read(tmp_path: Path) -> None:
    path = tmp_path / "stderr.log"
    assert last_lines(path, 3) == ()
    path.write_bytes(b"one\ntwo\nthree \xff\nfour")
    assert last_lines(path, 3) == ("two", "three \\xff", "four")
    assert last_lines(path, 9) == ("one", "two", "three \\xff", "four")
    path.write_text("".join(f"{number} {'x' * 90}\n" for number in range(10_000)))
    assert [line.split()[0] for line in last_lines(path, 2)] == ["9998", "9999"]
    assert len(last_lines(path, 10_000)[0].split()[1]) == 90, "no line that was cut by the look"


@pytest.mark.parametrize("shown", [None, {0}, {1, 2}], ids=["all", "another", "this"])
@pytest.mark.parametrize("tee", [Std.NONE, Std.OUT, Std.ALL, {1: Std.ERR}, {0: Std.ALL}])
@pytest.mark.parametrize("redirects", [Std.NONE, Std.ERR, Std.ALL, {1: Std.OUT}, {0: Std.ALL}])
def test_each_stream_goes_where_torch_would_send_it(
    tmp_path: Path, redirects: StdOption, tee: StdOption, shown: set[int] | None
) -> None:
    def torchs(option: StdOption) -> Any:
        if isinstance(option, Mapping):
            return {rank: TorchStd(int(std)) for rank, std in option.items()}
        return TorchStd(int(option))

    specs = DefaultLogsSpecs(str(tmp_path), torchs(redirects), torchs(tee), shown)
    dest = specs.reify({0: {}, 1: {}})
    expected = [
        (
            Path(files[1]).name if files[1] not in ("", os.devnull) else None,
            not files[1] or 1 in teed,
        )
        for files, teed in ((dest.stdouts, dest.tee_stdouts), (dest.stderrs, dest.tee_stderrs))
    ]
    plan = LogOptions(str(tmp_path), redirects, tee, frozenset(shown or ()))
    folder = LogFolder(plan, "run")
    found = [
        (route.file.name if route.file else None, route.console)
        for route in folder.routes(folder.attempt(0, 1), 1)
    ]
    assert found == expected


def test_two_runs_of_one_name_do_not_share_a_folder(tmp_path: Path) -> None:
    plan = LogOptions(base=str(tmp_path))
    assert LogFolder(plan, "run").path != LogFolder(plan, "run").path


def test_a_base_folder_is_made_with_its_parents(tmp_path: Path) -> None:
    assert LogFolder(LogOptions(base=str(tmp_path / "a" / "b")), "run").path.is_dir()


def test_without_a_base_the_folder_is_a_temporary_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    path = LogFolder(LogOptions(), "run").path
    assert path.parent.parent == tmp_path
    assert path.parent.name.startswith("llutil_logs_")


def test_a_base_that_cannot_be_written_is_a_bad_configuration(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    base = str(tmp_path / "file" / "logs")
    with pytest.raises(ConfigError, match=r"log_dir .*file/logs' cannot be written \(Not a dir"):
        LogFolder(LogOptions(base=base), "run")


def test_a_log_file_is_appended_to(tmp_path: Path) -> None:
    for text in (b"one\n", b"two\n"):
        fd = open_log(tmp_path / "stdout.log")
        os.write(fd, text)
        os.close(fd)
    assert (tmp_path / "stdout.log").read_text() == "one\ntwo\n"


def test_filtered_lines_have_torchs_file_and_only_streams_on_the_console_are_filtered(
    tmp_path: Path,
) -> None:
    options = LogOptions(
        base=str(tmp_path),
        redirects={1: Std.ALL},
        tee={0: Std.ALL, 2: Std.ALL},
        ranks_shown=frozenset({0, 1}),
        wanted_stdout=("loss",),
    )
    folder = LogFolder(options, "run")
    routes = [folder.routes(folder.attempt(0, rank), rank) for rank in range(4)]
    path = folder.path / "attempt_0" / "filtered_stdout.log"
    assert routes[0][0].filtered == path
    assert routes[0][0].wanted == ("loss",)
    assert [route.filtered for pair in routes for route in pair].count(None) == 7
    stock = DefaultLogsSpecs(
        str(tmp_path),
        redirects={1: TorchStd.ALL},
        tee={0: TorchStd.ALL, 2: TorchStd.ALL},
        local_ranks_filter={0, 1},
    ).reify({rank: {} for rank in range(4)})
    assert Path(stock.filtered_stdout).parts[-2:] == path.parts[-2:]
    assert list(stock.tee_stdouts) == [0]


def test_what_the_kernel_takes_in_parts_is_written_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = os.write
    fd = open_log(tmp_path / "log")
    monkeypatch.setattr(os, "write", lambda fd, data: write(fd, data[:2]))
    write_all(fd, b"a line\n")
    os.close(fd)
    assert (tmp_path / "log").read_bytes() == b"a line\n"


@pytest.mark.parametrize(
    ("rank", "world_size", "given", "files"),
    [
        (8, 9, {}, ["stdout.log", "stderr.log"]),
        (0, 9, {}, []),
        (7, 8, {}, []),
        (8, 9, {"many_to_files": False}, []),
        (8, 9, {"tee": Std.OUT}, ["stderr.log"]),
        (8, 9, {"redirects": Std.ERR}, ["stdout.log"]),
    ],
)
def test_of_more_than_eight_ranks_those_after_the_first_go_to_files_unless_somebody_says_where(
    tmp_path: Path, rank: int, world_size: int, given: dict[str, Any], files: list[str]
) -> None:
    folder = LogFolder(LogOptions(**{"base": str(tmp_path), "many_to_files": True, **given}), "run")
    routes = folder.routes(folder.attempt(0, 1), 1, rank, world_size)
    by_default = [route for route in routes if route.by_default]
    assert [route.file.name for route in by_default if route.file is not None] == files
    assert not any(route.console or route.is_direct for route in by_default)
    if not given:
        assert all(route.console for route in routes if not route.by_default)
