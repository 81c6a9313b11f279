"""What is written: files, with the module that makes each, and keys.

A test compares the modules with those of the code that make files, and the keys with those that the
code uses.
"""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["FILES", "NO_FILES", "STATE_KEYS", "XCOMS", "FileMade"]


@dataclass(frozen=True, slots=True)
class FileMade:
    """A kind of files: who makes it, what it is, how long it stays, and the module."""

    who: str
    what: str
    until: str
    module: str


_END = "the end of the job; stale ones are removed by whoever looks"
_NAMELESS = "the end of the processes that use it"

FILES = (
    FileMade(
        "operator",
        "`elastic-launch-<uid>` in the temporary folder, which only the user may enter. In it: "
        "`logs-*`, the ranks' log files if `log_dir` is not given; `said-*`, empty files that say "
        "what the preflight has said on this host; and the next three rows",
        "`logs-*`: removed after success and after a bad configuration, else kept if they hold "
        "anything, and named in the log. The folder and `said-*`: yours",
        "airflow_provider/execution/worker_files.py",
    ),
    FileMade(
        "agent server",
        "`llutil-<uid>/*.agents`, its socket, and `*.lock`, in the temporary folder; `*.problem`, "
        "why it could not start. Only where [agents are kept ready](../ready-agents.md)",
        "the end of the server; after SIGKILL, the start of the next one. `*.problem`: the next "
        "task, which logs it",
        "llutil/agent_server/place.py",
    ),
    FileMade(
        "operator",
        "a memory file without a name: what an agent that is to be forked is started with",
        _NAMELESS,
        "llutil/agent_server/order.py",
    ),
    FileMade(
        "agent",
        "`*.orphan_log`: what the agent says after its task is gone",
        "shown and emptied by the next try",
        "llutil/agent_process/orphan_log.py",
    ),
    FileMade(
        "agent",
        "`*.agent_record`: who it is and, once it has ended, how",
        "removed by its task, or by the next try if that was killed",
        "llutil/task_link/agent_record.py",
    ),
    FileMade(
        "operator, worker",
        "`*.try_<n>.results/rank_<n>.pickle`, `.json` or `.npz`: values that could not be handed "
        "on; of a library call, in `results` of its log folder",
        "yours",
        "llutil/serialization/kept_value.py",
    ),
    FileMade(
        "agent",
        "`<log_dir>/<run id>_<random>/attempt_<n>/<local rank>/stdout.log` and `stderr.log`, if "
        "asked for or where ranks are many; `filtered_stdout.log` and `filtered_stderr.log` beside "
        "these folders; a library call without `log_dir` makes `llutil_logs_*` in the temporary "
        "folder",
        "yours; see `log_dir`",
        "llutil/agent/output/log_files.py",
    ),
    FileMade(
        "worker",
        "`error.json` in the same folder, after a failure, in torch's form",
        "yours; see `log_dir`",
        "llutil/agent/worker_side/error_report.py",
    ),
    FileMade(
        "agent",
        "the event page, `/dev/shm/llutil-events-*`",
        "the end of the job; stale ones are removed by the next job",
        "llutil/events/page_file.py",
    ),
    FileMade(
        "agent",
        "its socket in `/dev/shm/llutil-<uid>`, which only the user may enter",
        _END,
        "llutil/agent_socket/folder.py",
    ),
    FileMade(
        "worker",
        "`<checkpoint_path>/<job>/`: `step-<n>-<random>/` with what your ranks wrote and the "
        "marker `COMMITTED`, `.attempts/`, `.succeeded-<n>`, `.chaos/`",
        "`checkpoint_keep` are kept; the last ones are yours",
        "llutil/checkpoints/local_store.py",
    ),
    FileMade(
        "worker",
        "the same by fsspec, where the path is a URI",
        "the same",
        "llutil/checkpoints/remote_store.py",
    ),
    FileMade(
        "worker",
        "`random-states-<rank>.pt` of the Lightning callback, in a checkpoint's folder",
        "as long as the checkpoint",
        "llutil/integrations/lightning_position.py",
    ),
    FileMade(
        "operator",
        "`<results_path>/dag_id=.../.../rank_<n>.json` or `.npz`, in an object store",
        "yours: let the store expire them",
        "airflow_provider/results/object_store.py",
    ),
    FileMade(
        "operator, agent",
        "with a `results_path`, a file without a name in the temporary folder: what ranks return",
        _NAMELESS,
        "llutil/task_link/results_file.py",
    ),
    FileMade(
        "operator",
        "a file in memory with the secrets of the store, which the agent alone reads",
        _NAMELESS,
        "llutil/task_link/secrets_file.py",
    ),
    FileMade(
        "agent",
        "files in memory: what a rank is to do, and what ranks share",
        _NAMELESS,
        "llutil/agent/worker_side/work_order.py",
    ),
    FileMade(
        "agent",
        "the same for the process that ranks are started from",
        _NAMELESS,
        "llutil/agent/start_methods/rank_server.py",
    ),
    FileMade(
        "worker",
        "a file in memory, in which it writes its stacks when it is asked for them",
        _NAMELESS,
        "llutil/agent/worker_side/stack_signal.py",
    ),
    FileMade(
        "`llutil doctor`, preflight",
        "a file without a name, by which free space is tried",
        "at once",
        "llutil/preflight/host.py",
    ),
    FileMade(
        "`elastic_chaos`",
        "a temporary folder of a test",
        "the end of the test",
        "llutil/testing/chaos_run.py",
    ),
    FileMade("`elastic_chaos`", "the same, by a node", "the same", "llutil/testing/node.py"),
    FileMade(
        "`elastic_chaos`",
        "the same, by a rank: the steps that it made",
        "the same",
        "llutil/chaos/journal.py",
    ),
)
"""Everything that the code makes on disk or in memory files."""

NO_FILES = {
    "llutil/debugger/rank_pdb.py": "the terminal",
    "llutil/serialization/npz_archive.py": "a part of a file that others have opened",
}
"""Modules that open what is there already."""

STATE_KEYS = (
    ("task_state/notes", "STATE"),
    ("task_state/notes", "PROGRESS"),
    ("task_state/notes", "CHECKPOINT"),
    ("task_state/orders", "CONTROL"),
    ("task_state/orders", "ANSWER"),
    ("task_state/elastic_form", "ELASTIC"),
    ("retries/policy", "KEY"),
    ("execution/checkpoint_job", "FIRST_START"),
    ("execution/slot_wait", "LAST_RUN"),
)
"""The keys in a task instance's state, as constants of ``airflow_provider``."""

XCOMS = (
    ("gang/success_note", "NOTE"),
    ("gang/ledger_notice", "NOTICE"),
    ("gang/version_check", "VERSIONS"),
    ("execution/checkpoint_job", "FIRST_START"),
    ("execution/dag_test", "DAG_TEST_RESULTS"),
)
"""The XComs beside ``return_value`` and ``rank_<n>``, in the same way."""
