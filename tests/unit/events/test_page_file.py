"""The file behind the page: what is refused, and which pages count as stale."""

from __future__ import annotations

import os
import struct
from collections.abc import Callable
from pathlib import Path

import pytest

from llutil.errors import ConfigError, InfrastructureError, LaunchError
from llutil.events import metrics
from llutil.events.events import CAPACITY, Events, remove_stale_pages

SIZE = 256 + CAPACITY * (64 + metrics.SIZE)
SOMEBODY_GONE = 2**22 + 1  # above Linux's greatest possible pid


def overwrite(path: Path, offset: int, data: bytes) -> None:
    with path.open("r+b") as file:
        file.seek(offset)
        file.write(data)


def drop(path: Path) -> None:
    path.unlink()


def empty(path: Path) -> None:
    os.truncate(path, 0)


def cut(path: Path) -> None:
    os.truncate(path, SIZE - 64)


def cut_in_the_header(path: Path) -> None:
    os.truncate(path, 20)


def replace_by_text(path: Path) -> None:
    path.write_text("not a page at all" * 1000)


def replace_by_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def replace_by_fifo(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def replace_by_link(path: Path) -> None:
    path.rename(path.with_name("elsewhere"))
    path.symlink_to(path.with_name("elsewhere"))


def make_newer(path: Path) -> None:
    overwrite(path, 8, struct.pack("=I", 99))


@pytest.mark.parametrize(
    ("spoil", "kind", "text"),
    [
        (drop, InfrastructureError, "no event page at .* the process that made it has ended"),
        (empty, ConfigError, "is not an event page of llutil: it begins with b''"),
        (cut, InfrastructureError, f"has {SIZE - 64} bytes of {SIZE}"),
        (cut_in_the_header, InfrastructureError, f"has 20 bytes of {SIZE}"),
        (
            replace_by_text,
            ConfigError,
            "is not an event page of llutil: it begins with b'not a pa'",
        ),
        (replace_by_folder, ConfigError, "cannot be opened as an event page: Is a directory"),
        (replace_by_fifo, ConfigError, "is not an event page"),
        (replace_by_link, ConfigError, "cannot be opened as an event page: Too many levels"),
        (
            make_newer,
            ConfigError,
            "is of version 99, this llutil needs version 2: install the same",
        ),
    ],
)
def test_a_file_that_is_no_page_of_ours_is_refused(
    tmp_path: Path, spoil: Callable[[Path], None], kind: type[LaunchError], text: str
) -> None:
    events = Events(folder=tmp_path)
    path = Path(events.path)
    spoil(path)
    with pytest.raises(kind, match=text):
        Events.attach(str(path))
    if path.is_dir():
        path.rmdir()
    events.close()


def test_a_folder_that_takes_no_page_is_named(tmp_path: Path) -> None:
    with pytest.raises(InfrastructureError, match=r"cannot make an event page in .*missing"):
        Events(folder=tmp_path / "missing")


def test_a_page_goes_to_shared_memory_by_default() -> None:
    with Events() as events:
        assert Path(events.path).parent == Path("/dev/shm")


def test_a_living_creators_page_is_not_stale(tmp_path: Path) -> None:
    with Events(folder=tmp_path) as events:
        assert remove_stale_pages(tmp_path) == []
        assert Path(events.path).exists()


@pytest.mark.parametrize(
    ("what", "offset", "number", "stale"),
    [
        ("its creator is gone", 16, SOMEBODY_GONE, True),
        ("its creator's pid belongs to a younger process now", 24, 1, True),
        ("a newer llutil made it, whose process lives", 8, 99, False),
    ],
)
def test_a_page_is_stale_if(
    tmp_path: Path, what: str, offset: int, number: int, stale: bool
) -> None:
    with Events(folder=tmp_path) as events:
        form = "=I" if offset == 8 else "=Q"
        overwrite(Path(events.path), offset, struct.pack(form, number))
        assert remove_stale_pages(tmp_path) == ([events.path] if stale else [])
        assert Path(events.path).exists() != stale


def test_whether_a_creator_of_another_pid_namespace_is_gone_cannot_be_told(tmp_path: Path) -> None:
    with Events(folder=tmp_path) as events:
        overwrite(Path(events.path), 16, struct.pack("=QQQ", SOMEBODY_GONE, 1, 1))
        assert remove_stale_pages(tmp_path) == []


def test_room_for_the_whole_page_is_set_aside(tmp_path: Path) -> None:
    """Else a full disk would kill whoever writes to it later."""
    with Events(folder=tmp_path) as events:
        assert Path(events.path).stat().st_blocks * 512 >= SIZE


def test_a_stale_page_of_another_version_goes_too(tmp_path: Path) -> None:
    with Events(folder=tmp_path) as events:
        make_newer(Path(events.path))
        overwrite(Path(events.path), 16, struct.pack("=Q", SOMEBODY_GONE))
        assert remove_stale_pages(tmp_path) == [events.path]


@pytest.mark.parametrize("spoil", [empty, cut_in_the_header, replace_by_text, replace_by_fifo])
def test_files_that_are_no_pages_are_left_alone(
    tmp_path: Path, spoil: Callable[[Path], None]
) -> None:
    with Events(folder=tmp_path) as events:
        spoil(Path(events.path))
        assert remove_stale_pages(tmp_path) == []
        assert Path(events.path).exists()


def test_a_folder_that_is_missing_has_no_stale_pages(tmp_path: Path) -> None:
    assert remove_stale_pages(tmp_path / "missing") == []


@pytest.mark.parametrize(("boot", "judged"), [(bytes(16), True), (b"another host's.", False)])
def test_a_page_of_another_host_or_boot_is_not_judged(
    tmp_path: Path, boot: bytes, judged: bool
) -> None:
    """Hosts may share a folder. Their processes have the same numbers, and the same namespace."""
    with Events(folder=tmp_path) as events:
        overwrite(Path(events.path), 16, struct.pack("=Q", SOMEBODY_GONE))
        overwrite(Path(events.path), 40, boot)
        assert remove_stale_pages(tmp_path) == ([events.path] if judged else [])
