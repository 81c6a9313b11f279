"""What an agent tells its ranks of the faults of their job, in one variable of their environment.

This module may import only the standard library, ``llutil.errors`` and the room's values.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from llutil.chaos.fault_texts import all_faults
from llutil.chaos.faults import Cut, Fault, Preempt
from llutil.chaos.variable import CHAOS
from llutil.errors import ConfigError

__all__ = ["RankFaults", "rank_faults"]


@dataclass(frozen=True, slots=True, kw_only=True)
class RankFaults:
    """``faults`` are those of the whole job, in the user's order. ``memory`` is the folder, or its
    URI, of the notes about those that have struck. ``agent`` is the pid of the rank's agent,
    and ``agent_start`` when that process started, in the kernel's ticks.
    """

    faults: Sequence[Fault]
    memory: str
    agent: int
    agent_start: int

    def variable(self) -> dict[str, str]:
        """The variable for the ranks."""
        told = {"faults": [str(one) for one in self.faults]}
        agent = {"agent": self.agent, "agent_start": self.agent_start}
        return {CHAOS: json.dumps({**told, "memory": self.memory, **agent})}

    def names(self) -> dict[str, Fault]:
        """The faults by the names of their notes. Of faults that are equal, each has its own."""
        found: dict[str, Fault] = {}
        for one in self.faults:
            text = str(one).replace("(", ".").replace(")", "").replace(", ", ".")
            count = 1 + sum(other == one for other in found.values())
            found[text if count == 1 else f"{text}.again-{count}"] = one
        return found

    def of_rank(self, rank: int, node: int, local_rank: int) -> dict[str, Fault]:
        """Those that this rank makes, by the names of their notes. What strikes a node is made by
        the node's first rank.
        """
        return {
            name: one
            for name, one in self.names().items()
            if (
                (local_rank == 0 and one.node == node)
                if isinstance(one, Preempt | Cut)
                else one.rank == rank
            )
        }


def rank_faults(environment: Mapping[str, str]) -> RankFaults:
    """What the agent has told this rank.

    :raises ConfigError: the variable is not what an agent writes.
    """
    text = environment[CHAOS]
    try:
        told = json.loads(text)
        faults = tuple(all_faults(told["faults"]))
        return RankFaults(
            faults=faults,
            memory=str(told["memory"]),
            agent=int(told["agent"]),
            agent_start=int(told["agent_start"]),
        )
    except (ValueError, TypeError, KeyError) as error:
        raise ConfigError(
            f"{CHAOS} is {text[:200]!r} in the environment, which no agent has written: {error}"
        ) from error
