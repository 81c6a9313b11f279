"""Makes a launch from the operator's rendered parameters, checks it and runs it, for one task
instance.

Imported when a task runs. What a connection says goes through this module into the agent's socket.
It is never an attribute of the operator, since Airflow would show that as a rendered template.
"""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from airflow_provider.agent_client.job_listener import JobListeners
from airflow_provider.execution.checkpoint_job import checkpoint_job
from airflow_provider.execution.dag_test import LOCAL_PARAMETERS, is_dag_test
from airflow_provider.execution.gang_node import Stoppable, run_node
from airflow_provider.execution.kept_ready import seconds_kept_ready
from airflow_provider.execution.kept_state import job_state, outcome_told, state_without_launch
from airflow_provider.execution.launch import Launch
from airflow_provider.execution.launch_task import LaunchTask
from airflow_provider.execution.left_checkpoint import LeftCheckpoint
from airflow_provider.execution.result_options import result_limit, result_store
from airflow_provider.execution.worker_files import first_time, kept_folder
from airflow_provider.gang.node import GangNode, rerun_token
from airflow_provider.gang.served_ledger import served_place
from airflow_provider.gang.success_note import NOTE
from airflow_provider.gang.version_check import exchange
from airflow_provider.hooks.agent import AgentHook
from airflow_provider.hooks.rendezvous_connection import connection_settings
from airflow_provider.parameters.entrypoint import entrypoint_for
from airflow_provider.parameters.environment_variables import environment_of
from airflow_provider.parameters.launch_config import has_several_nodes, launch_config
from airflow_provider.parameters.operator_parameters import task_problems
from airflow_provider.parameters.rendezvous import resolve_rendezvous
from airflow_provider.parameters.task_key import deployment, task_key
from airflow_provider.preflight.facts import preflight
from airflow_provider.results.push import keep_unpushed, push_results
from airflow_provider.retries.policy import ElasticRetryPolicy
from airflow_provider.telemetry.job_metrics import JobMetrics
from airflow_provider.telemetry.job_spans import JobSpans
from llutil.checkpoints.place import LIFE
from llutil.errors import ConfigError, EntrypointError, ResultError

if TYPE_CHECKING:
    from airflow_provider.results.object_store import ResultStore
    from airflow_provider.task_state.job_state import JobState
    from llutil.entrypoint import Entrypoint
    from llutil.launcher.config import LaunchConfig
    from llutil.task_link.agent_record import AgentRecord
    from llutil.task_link.messages import Hello

__all__ = ["TaskRun"]


class TaskRun:
    """What the task instance of ``context`` runs: a job, or one node of a gang.

    :param on_running: is called with what runs, so that it can be stopped.

    :raises ConfigError: a gang whose task was not expanded to one instance for each node.
    """

    def __init__(
        self,
        operator: LaunchTask,
        context: Mapping[str, Any],
        on_running: Callable[[Stoppable], None],
    ) -> None:
        self.on_running = on_running
        self._operator = operator
        self.context = context
        self._dag_folder = Path(context["dag"].fileloc).parent
        self._key = task_key(context)
        self._try_number = context["ti"].try_number
        cwd: Any = operator.cwd  # rendered: ``launch`` refuses what is no text
        given = isinstance(cwd, str) and cwd != ""
        self._cwd = os.path.normpath(self._dag_folder / cwd) if given else None
        nodes = operator.gang_nodes
        self._used_store: ResultStore | None = None
        self._returned: Mapping[int, Any] = {}
        """What is for XCom, once the job has succeeded."""
        self._states: list[JobState] = []
        self._left = LeftCheckpoint()
        self._metrics = JobMetrics(context["ti"], operator.log)
        self._node = (
            None if nodes is None else GangNode.of(context, nodes, operator.min_nodes or nodes)
        )

    def run(self, log: logging.Logger) -> dict[str, Any]:
        """Run to the end, and push to XCom what each rank of this node returned. Returns the task's
        ``return_value``: the values, by rank as a string.

        :raises AirflowFailException: this is a node of a gang that cannot form any more.
        :raises ResultError: the job has succeeded, but somebody could not take a value.
        :raises LaunchError: see ``AgentHook.run``; a ``ConfigError`` lists all problems.
        """
        with self._metrics.outcome_told(), outcome_told(self._states, self._without_launch):
            try:
                results, notes = self._run(log)
            except ResultError as error:
                try:
                    self._push(error.results, {})
                except ResultError as others:
                    raise ResultError(f"{error}\n{others}") from None
                raise
            return self._push(results, notes)

    def _run(self, log: logging.Logger) -> tuple[dict[int, Any], dict[str, Any]]:
        """Returns what each rank returned, and a gang's note for XCom, if there is one."""
        try:
            if self._node is None:
                hook = self.hook()
                self.on_running(hook)
                return self.launch().run(hook, log), {}
            results, note = run_node(self._node, self, log)
        except ResultError:
            raise
        except BaseException:  # such as the alarm of execution_timeout
            if self._returned:
                keep_unpushed(self._returned, self._kept_folder())
            raise
        return results, {NOTE: note.to_json()}

    def _without_launch(self) -> JobState | None:
        return state_without_launch(self.context, self._node, self._operator.log)

    def _succeeded(self, results: Mapping[int, Any]) -> None:
        """From here on, no failure is one of the job: the retry policy looks at this."""
        self._operator.job_succeeded = True
        self._returned = results if self.returns else {}

    def _kept_folder(self) -> Path:
        return kept_folder(self._key, deployment(), self._try_number)

    def _push(self, results: Mapping[int, Any], notes: Mapping[str, Any]) -> dict[str, Any]:
        self._succeeded(results)
        self._left.tell(self.context, self._operator.outlets)
        folder = self._kept_folder()
        try:
            values = push_results(self.context["ti"], self._returned, notes, folder)
        except ResultError as error:
            copies = self._used_store.copy_kept(folder, self._key) if self._used_store else []
            raise ResultError("\n".join((str(error), *copies))) from None
        return values if self.returns else {str(rank): None for rank in results}

    @property
    def gang_timeout(self) -> float:
        """How long the gang has to form, in seconds."""
        return self._operator.gang_timeout

    @property
    def pool(self) -> str:
        """The pool in which the task's instances take their slots."""
        return str(self._operator.pool)

    @property
    def returns(self) -> bool:
        """Whether the ranks' values go to XCom."""
        return bool(self._operator.do_xcom_push)

    def hook(self, label: str = "") -> AgentHook:
        """A hook for an agent of this task. ``label`` is put before its log lines, if one task runs
        several agents.
        """
        operator = self._operator
        # Agents with a label are all on this machine, so their versions are the same.
        return AgentHook(
            python=operator.python,
            cwd=self._cwd,
            env={**self._life(), **environment_of(operator.env)},
            label=label,
            keep_ready=seconds_kept_ready(operator, operator.log, first_time),
            on_hello=None if label or self._node is None else self._compare_versions,
        )

    def launch(self, *, locally: bool = False) -> Launch:
        """The checked launch. ``locally``: all nodes of the gang are on this machine.

        :raises ConfigError: parameters are wrong; the text lists all problems.
        """
        blank = self._operator.blank_templates()
        given = self._operator.parameters()
        nothing = {problem.field for problem in blank}
        known = {name: value for name, value in given.items() if name not in nothing}
        problems = [*blank, *task_problems(known)]
        config: LaunchConfig | None = None
        entrypoint: Entrypoint | None = None
        try:
            config = launch_config(known | self.rendezvous_parameters(known, locally=locally))
        except ConfigError as error:
            problems += [problem for problem in error.problems if problem not in problems]
        if nothing.isdisjoint(("entrypoint", "op_args", "op_kwargs")):
            try:
                entrypoint = self._entrypoint()
            except EntrypointError as error:
                if not problems:
                    raise
                problems += error.problems
        if problems:
            raise ConfigError(problems)
        assert config is not None
        assert entrypoint is not None
        store = self._used_store = result_store(self._operator, self.context["ti"])
        if not is_dag_test():
            log = self._operator.log
            preflight(self._operator, config, self._node, self.context, log, first_time)
        shared = self._node is None and config.max_nodes > 1 and bool(known.get("rdzv_id"))
        lasts = config.checkpoint_path is not None or bool(config.chaos)
        if lasts and not config.checkpoint_job and not shared:
            # Tasks that are nodes of one job by an id of their own share a folder of that name.
            config = self._with_checkpoint_job(config)
        state = job_state(self.context, config, self._operator.log)
        self._states += [] if state is None else [state]
        # Under dag.test() Airflow sets up neither metrics nor traces.
        told = () if is_dag_test() else (self._metrics, JobSpans(self._operator.log))
        return Launch(
            config=config,
            entrypoint=entrypoint,
            key=self._key,
            try_number=self._try_number,
            result_limit=result_limit(self._operator, store),
            retry=self._operator.launch_retry,
            id_by_attempt=self._node is None and not known.get("rdzv_id") and config.max_nodes == 1,
            store=store,
            begin=_tell_nobody if locally else self._tell_retry_policy,
            succeeded=_tell_nobody if locally else self._succeeded,
            deployment=deployment(),
            log_level=_log_level(),
            listener=JobListeners(self._left, *self._states[-1:], *told),
        )

    def _life(self) -> dict[str, str]:
        """The name of this life of the job, for its checkpoints: all tries share it, until somebody
        clears a task of the run. A try after one whose job had succeeded, but whose results were
        lost on their way, goes on from the end; after a clear the job begins afresh.
        """
        dag_run = self.context.get("dag_run")  # missing if a user's own test calls execute
        return {} if dag_run is None else {LIFE: rerun_token(dag_run)}

    def _with_checkpoint_job(self, config: LaunchConfig) -> LaunchConfig:
        """``config`` with the name of the job's folder for checkpoints."""
        log = self._operator.log
        name = checkpoint_job(self._key, self._node, self.context, log)
        return replace(config, checkpoint_job=name)

    def _compare_versions(self, hello: Hello) -> None:
        """Check that this node's agent has the same versions as its siblings' agents."""
        assert self._node is not None
        exchange(self._node, hello, socket.gethostname(), self.context["ti"], self._operator.log)

    def _tell_retry_policy(self, left: AgentRecord | None, log: logging.Logger) -> None:
        """Tell an ``ElasticRetryPolicy`` that this try begins."""
        policy = self._operator.retry_policy
        if isinstance(policy, ElasticRetryPolicy):
            policy.begin(self.context, left, log)

    def rendezvous_parameters(self, known: Mapping[str, Any], *, locally: bool) -> dict[str, Any]:
        """The parameters that depend on the task instance and on where nodes meet."""
        if self._node is None:
            default_id = self._key.rendezvous_id(self._try_number, 1)
            own = {"rdzv_id": known.get("rdzv_id") or default_id}
        else:
            own = self._node.parameters(known)
        if locally:
            return {**own, **LOCAL_PARAMETERS}
        several = has_several_nodes(known)
        without_store = None if self._node is None else served_place
        return own | resolve_rendezvous(
            known, several=several, connect=connection_settings, without_store=without_store
        )

    def _entrypoint(self) -> Entrypoint:
        operator = self._operator
        return entrypoint_for(
            operator.function or operator.entrypoint,
            operator.op_args,
            operator.op_kwargs,
            self.context,
            dag_folder=self._dag_folder,
            cwd=self._cwd,
        )


def _log_level() -> int:
    """From which level on Airflow shows what a task logs."""
    from airflow.sdk.configuration import conf

    name = str(conf.get("logging", "logging_level", fallback="INFO")).upper()
    return logging.getLevelNamesMapping().get(name, logging.INFO)


def _tell_nobody(*_: object) -> None:
    """For a gang under ``dag.test()``: its nodes share one task instance, so none has a try of its
    own.
    """
