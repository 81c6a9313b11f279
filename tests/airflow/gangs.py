"""Gangs of two nodes whose workers go on until they are let go, as tests see them: in logs, in etcd
and in XCom.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from tests.airflow.client import Run, Task, wait
from tests.airflow.conftest import Meeting, await_nothing_left, hold, let_go
from tests.airflow.server import Airflow

__all__ = ["ALONE", "BOTH", "HEARTBEAT", "Gang"]

ALONE = "in a world of 1"
BOTH = "in a world of 2"
HEARTBEAT = 5.0  # seconds after which a task learns at the latest that Airflow wants it to end


@dataclass(frozen=True, slots=True)
class Gang:
    """The gang ``meet`` of a run, whose workers run ``duties.stay`` of the DAG files."""

    run: Run

    @property
    def nodes(self) -> tuple[Task, Task]:
        """Its two nodes."""
        return self.run.task("meet", 0), self.run.task("meet", 1)

    def together(self, seconds: float = 150) -> Gang:
        """Wait until both nodes, in their last tries, have worked together."""
        for node in self.nodes:
            node.await_text(BOTH, seconds=seconds)
        return self

    def alone(self, seconds: float) -> None:
        """Wait until node 0, which has worked with node 1, has worked without it since."""
        stays = self.nodes[0]
        wait(
            f"node 0 of {self.run.run_id} to work alone",
            seconds,
            lambda: True if ALONE in stays.text().partition(BOTH)[2] else None,
            self.run.tail,
        )

    def together_again(self, rounds: int = 2, seconds: float = 120) -> None:
        """Wait until node 0, in one try, has been in so many rounds of both nodes."""
        stays = self.nodes[0]
        wait(
            f"{rounds} rounds of both nodes of {self.run.run_id}",
            seconds,
            lambda: True if stays.text().count(BOTH) >= rounds else None,
            self.run.tail,
        )

    def run_again(self, server: Airflow) -> None:
        """Clear it. Its workers return once both nodes are together, however slowly these start."""
        hold(self.run, server)
        tries = [node.facts()["try_number"] + 1 for node in self.nodes]
        self.run.clear("meet")
        for node, number in zip(self.nodes, tries, strict=True):
            node.await_try(number)
            node.await_text(BOTH, seconds=150, try_number=number)
        self.let_go(server)

    def let_go(self, server: Airflow) -> None:
        """Let its workers, those of later tries too, return."""
        let_go(self.run, server)

    def launches(self) -> set[str]:
        """The rendezvous ids under which the last tries of both nodes were launched."""
        # The last in each log: that of a run which was deleted is in the file of the one that has
        # its id now.
        said = [re.findall(r"launching \S+ as (\S+)", node.text()) for node in self.nodes]
        return {names[-1] for names in said if names}

    def ranks(self) -> dict[str, dict[str, str]]:
        """What the ranks of both nodes have returned, by rank."""
        returned = [node.xcoms().get("return_value", {}) for node in self.nodes]
        return {rank: value for ranks in returned for rank, value in ranks.items()}

    def keys(self, kind: str, meeting: Meeting) -> list[str]:
        """The keys of that kind that it has in etcd."""
        names = self.launches()
        return [
            key
            for key in meeting.stored()
            if f"/{kind}/" in key and any(name in key for name in names)
        ]

    def nothing_left(self, server: Airflow, meeting: Meeting, seconds: float = 20) -> None:
        """Wait until no process of it is left, and no node of it in etcd."""
        await_nothing_left(server, self.run, seconds=seconds)
        assert self.keys("members", meeting) == []
