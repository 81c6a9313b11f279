"""Which count of out-of-memory kills is taken, and what it says, from stand-ins for /proc and
/sys/fs/cgroup.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from llutil.system.oom_kills import KillCount, OomWatch

V2 = "25 30 0:26 {root} {mount} rw,nosuid - cgroup2 cgroup2 rw,nsdelegate\n"
V1 = "14 31 0:32 {root} {mount} rw,relatime - cgroup cgroup rw,memory\n"
OTHER = (
    "15 31 0:33 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu\n"
    "36 31 8:1 / / rw - ext4 /dev/sda rw\n"
)


class World:
    """A /proc and a mount of cgroups in a folder; the process is 42."""

    def __init__(self, folder: Path, groups: str, mounts: str, root: str = "/") -> None:
        self.proc, self.mount = folder / "proc", folder / "cgroup"
        for name in ("42", "self"):
            (self.proc / name).mkdir(parents=True)
        (self.proc / "42" / "cgroup").write_text(groups)
        text = OTHER + mounts.format(root=root, mount=self.mount)
        (self.proc / "self" / "mountinfo").write_text(text)
        self.mount.mkdir()

    def count(self, place: str, kills: int, name: str = "memory.events") -> None:
        folder = self.mount / place
        folder.mkdir(parents=True, exist_ok=True)
        text = f"low 0\noom 7\noom_kill {kills}\noom_group_kill 9\n"
        if name == "memory.oom_control":
            text = f"oom_kill_disable 0\nunder_oom 0\noom_kill {kills}\n"
        (folder / name).write_text(text)

    def watch(self) -> OomWatch:
        return OomWatch(42, self.proc)

    def where(self, place: str) -> str:
        return f"the memory cgroup {self.mount / place}"


def test_kills_since_the_watch_began_are_counted(tmp_path: Path) -> None:
    world = World(tmp_path, "0::/jobs/7\n", V2)
    world.count("jobs/7", 3)
    watch = world.watch()
    assert watch.kills() == KillCount(world.where("jobs/7"), 0)
    world.count("jobs/7", 5)
    assert watch.kills() == KillCount(world.where("jobs/7"), 2)


def test_version_1_counts_elsewhere_and_goes_first(tmp_path: Path) -> None:
    world = World(tmp_path, "4:memory:/jobs/7\n3:cpu:/x\n0::/jobs/7\n", V2 + V1)
    world.count("jobs/7", 0)
    world.count("jobs/7", 0, "memory.oom_control")
    watch = world.watch()
    world.count("jobs/7", 1, "memory.oom_control")
    assert watch.kills() == KillCount(world.where("jobs/7"), 1)


@pytest.mark.parametrize("name", ["caf\xe9".encode("latin-1"), "a\u2028b".encode(), b"a\rb"])
def test_the_name_of_another_mount_may_be_any_bytes(tmp_path: Path, name: bytes) -> None:
    """The kills of the whole machine are not taken for the job's."""
    world = World(tmp_path, "0::/jobs/7\n", V2)
    mounts = world.proc / "self" / "mountinfo"
    line = b"40 31 8:2 / /mnt/%s rw - ext4 /dev/sdb rw\n" % name
    mounts.write_bytes(line + mounts.read_bytes())
    (world.proc / "vmstat").write_text("oom_kill 3\n")
    world.count("jobs/7", 0)
    assert world.watch().kills() == KillCount(world.where("jobs/7"), 0)


@pytest.mark.parametrize(
    ("counted", "nearest"), [("jobs", "jobs"), ("", ""), ("jobs/7/worker", None)]
)
def test_the_nearest_group_upwards_that_can_be_read_counts(
    tmp_path: Path, counted: str, nearest: str | None
) -> None:
    world = World(tmp_path, "0::/jobs/7\n", V2)
    world.count(counted, 0)
    watch = world.watch()
    world.count(counted, 1)
    found = watch.kills()
    assert found == (None if nearest is None else KillCount(world.where(nearest), 1))


def test_a_sibling_of_the_group_does_not_count(tmp_path: Path) -> None:
    world = World(tmp_path, "0::/jobs/7\n", V2)
    for place in ("jobs/7", "jobs"):
        world.count(place, 0)
    watch = world.watch()
    world.count("jobs", 1)
    assert watch.kills() == KillCount(world.where("jobs/7"), 0)


@pytest.mark.parametrize(
    ("group", "root"),
    [("/docker/abc", "/docker/abc"), ("/", "/"), ("/../..", "/"), ("/else", "/docker")],
    ids=["the mount's own", "a namespace", "outside a namespace", "outside the mount"],
)
def test_in_a_container_the_mount_is_the_containers_own_group(
    tmp_path: Path, group: str, root: str
) -> None:
    world = World(tmp_path, f"0::{group}\n", V2, root)
    world.count("", 1)
    watch = world.watch()
    world.count("", 2)
    assert watch.kills() == KillCount(world.where(""), 1)


def test_a_group_below_a_containers_own_is_found_below_the_mount(tmp_path: Path) -> None:
    world = World(tmp_path, "0::/docker/abc/sub\n", V2, "/docker/abc")
    world.count("sub", 0)
    world.count("", 0)
    watch = world.watch()
    world.count("sub", 1)
    assert watch.kills() == KillCount(world.where("sub"), 1)


def test_where_no_group_counts_the_machine_does(tmp_path: Path) -> None:
    world = World(tmp_path, "0::/\n", V2)
    vmstat = world.proc / "vmstat"
    vmstat.write_text("nr_free_pages 7\noom_kill 1\n")
    watch = world.watch()
    vmstat.write_text("nr_free_pages 7\noom_kill 2\n")
    assert watch.kills() == KillCount("this machine", 1)


@pytest.mark.parametrize(
    "groups", ["", "nonsense\n", "0::/jobs\n"], ids=["empty", "foreign", "gone"]
)
def test_what_cannot_be_read_is_not_known(tmp_path: Path, groups: str) -> None:
    world = World(tmp_path, groups, V2)
    assert world.watch().kills() is None
    (world.proc / "self" / "mountinfo").write_text("1 2\n")
    assert world.watch().kills() is None
    assert OomWatch(42, tmp_path / "nowhere").kills() is None


def test_a_group_that_is_gone_tells_nothing(tmp_path: Path) -> None:
    world = World(tmp_path, "0::/jobs\n", V2)
    world.count("jobs", 1)
    watch = world.watch()
    (world.mount / "jobs" / "memory.events").unlink()
    assert watch.kills() is None
