"""Every error this package raises on purpose, and what each says about trying again.

The tree::

    LaunchError                     failure_class, retryable
    ├── ConfigError (ValueError)    the caller's mistake, found before anything ran
    │   └── EntrypointError         what was to be run is missing or cannot be sent
    ├── InfrastructureError         not the caller's fault: trying again can help
    │   ├── RendezvousError         nodes did not find each other, or lost their store
    │   │   ├── ServerLostError     the node that serves their store has gone
    │   │   └── RendezvousTimeoutError  too few nodes came in time; their store answered
    │   ├── AgentLostError          the agent process ended without a verdict
    │   └── CheckpointError         a checkpoint was not committed; training can go on
    │       ├── CheckpointStoreError    the store of checkpoints refused to write or to read
    │       └── CheckpointPeerError     another rank failed in it
    │           └── CheckpointAbandonedError    the other ranks have gone on without this one
    ├── StoppedError                somebody asked the job to stop
    ├── ResultError                 the job succeeded, but a value cannot be handed on
    └── WorkersFailedError          a rank failed: the text is the report

``launch_agent`` itself raises torch's ``ChildFailedError`` when a rank fails, so that ``except``
clauses written for torch keep working; ``WorkersFailedError`` is how that reaches a process which
has no torch. What is known of the failed rank is their ``failure``, as a value. This module may
import nothing but the standard library and ``llutil.failure``.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from llutil.failure import Failure, FailureClass, JobFailure

__all__ = [
    "AgentLostError",
    "CheckpointAbandonedError",
    "CheckpointError",
    "CheckpointPeerError",
    "CheckpointStoreError",
    "ConfigError",
    "EntrypointError",
    "InfrastructureError",
    "LaunchError",
    "Problem",
    "RendezvousError",
    "RendezvousTimeoutError",
    "ResultError",
    "ServerLostError",
    "StoppedError",
    "WorkersFailedError",
]


class LaunchError(Exception):
    """The root of this package's errors.

    ``retryable`` says whether the same launch, tried again at once and unchanged, has a chance.

    What to do: what the text says.
    """

    default_class: FailureClass = FailureClass.INFRASTRUCTURE
    """The class of failure that an error of this type is, unless ``job_failure`` was set."""
    retryable: bool = False
    _step: int = 0
    _job_failure: JobFailure | None = None

    @property
    def job_failure(self) -> JobFailure:
        """What went wrong, as one value."""
        if self._job_failure is not None:
            return self._job_failure
        return JobFailure(why=str(self).partition("\n")[0], failure_class=self.default_class)

    @job_failure.setter
    def job_failure(self, told: JobFailure) -> None:
        self._job_failure = told

    @property
    def failure_class(self) -> FailureClass:
        """What kind of failure it is."""
        return self.job_failure.failure_class

    @property
    def failure(self) -> Failure | None:
        """The rank's failure that the job ended by, if it ended by one."""
        return self.job_failure.failure

    @property
    def step(self) -> int:
        """The furthest step that any rank was known to have made; 0 means none. It is at least the
        one of ``failure``.
        """
        return max(self._step, self.failure.step if self.failure is not None else 0)

    @step.setter
    def step(self, known: int) -> None:
        self._step = known


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong with a configuration.

    ``field`` is the name of the field or parameter that it is wrong with; empty if there is no such
    name. ``text`` goes on after that name: what was found, what was wanted, what to do. ``others``
    are the fields whose values make it a problem, beside its own. ``str`` gives the sentence.
    """

    field: str
    text: str
    others: tuple[str, ...] = ()

    def __str__(self) -> str:
        return f"{self.field} {self.text}" if self.field else self.text


class ConfigError(LaunchError, ValueError):
    """The configuration cannot work. ``problems`` holds every one that was found, not just the
    first.

    What to do: correct what the text lists. No rank has started.
    """

    default_class = FailureClass.BAD_CONFIGURATION

    def __init__(self, problems: str | Problem | Iterable[str | Problem]) -> None:
        found = (problems,) if isinstance(problems, str | Problem) else problems
        self.problems = tuple(Problem("", one) if isinstance(one, str) else one for one in found)
        if len(self.problems) == 1:
            text = str(self.problems[0])
        else:
            lines = "".join(f"\n  - {problem}" for problem in self.problems)
            text = f"{len(self.problems)} things are wrong:{lines}"
        super().__init__(text)

    def __reduce__(self) -> tuple[type[ConfigError], tuple[tuple[Problem, ...]], dict[str, Any]]:
        return type(self), (self.problems,), self.__dict__


class EntrypointError(ConfigError):
    """What was to be run is missing, cannot be imported, or cannot be sent to a worker.

    What to do: give a path or a module that the ranks find, or a function that does not hold what
    belongs to this process alone.
    """


class InfrastructureError(LaunchError):
    """Something outside the caller's code and configuration failed; trying again can help.

    What to do: try again; if it comes back, look at the host, the network or the store it names.
    """

    retryable = True


class RendezvousError(InfrastructureError):
    """The nodes of the job did not find each other in time, or lost the store they meet through.

    What to do: see that the store runs and that all nodes reach it (``llutil doctor``).
    """


class ServerLostError(RendezvousError):
    """The node that serves the store that the nodes meet through has gone, or is not there.

    What to do: start that node again; the others then begin with it. With an etcd or a ZooKeeper no
    node has to live.
    """


class RendezvousTimeoutError(RendezvousError):
    """No round began in time: too few nodes came. The store that they meet through answered.

    What to do: start the nodes that the text misses, ask for fewer by ``min_nodes``, or wait longer
    by ``rdzv_configs["timeout"]``.
    """


class AgentLostError(InfrastructureError):
    """The agent process ended without saying how the job went.

    What to do: look for what killed it: the kernel for lack of memory, or a person.
    """


class CheckpointError(InfrastructureError):
    """A checkpoint was not committed on all ranks. The one before it is as it was, and a rank that
    catches this can train on.

    What to do: see to the store of checkpoints, as the text says, before the next one.
    """


class CheckpointStoreError(CheckpointError):
    """The store of checkpoints refused to write or to read: its disk is full, or it is away.

    What to do: see to the store. A task that is tried again goes on from the newest checkpoint.
    """


class CheckpointPeerError(CheckpointError):
    """Another rank failed in the checkpoint, as the text says. Where that rank's own failure is
    known, a report names that one, and not this.

    What to do: see to what the other rank says.
    """


class CheckpointAbandonedError(CheckpointPeerError):
    """What this rank had saved of the checkpoint was removed before it was committed: the other
    ranks have given it up, or a later round of the job is at work without this one.

    What to do: look for what this node had lost: its peers, or their store.
    """


class StoppedError(LaunchError):
    """Somebody asked the job to stop, and it did.

    What to do: nothing, or launch it again: it goes on from its newest checkpoint.
    """

    default_class = FailureClass.PREEMPTION


class ResultError(LaunchError):
    """The job has succeeded, but a rank returned a value that cannot be handed on, or an earlier
    launch of this node had values, and ended before it could hand them on.

    The text names the rank and the place in the value, and says where the value is kept.
    ``results`` are the values of the other ranks.

    What to do: read the value where it is kept, and return less, or values that XCom takes. Nothing
    has to be trained again.
    """

    default_class = FailureClass.RESULT
    results: Mapping[int, Any] = MappingProxyType({})


class WorkersFailedError(LaunchError):
    """One rank or more failed; the text is the report. ``failure`` is the first of them.

    What to do: read the traceback of the first failure, and its class.
    """

    default_class = FailureClass.USER_CODE
