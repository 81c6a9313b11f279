"""A table of jobs that cannot work: what a user wrote, and what the error must say.

Values are templates where the operator would otherwise refuse them while the file is parsed. The
tests read this table too, so it imports neither Airflow nor the provider.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

__all__ = ["MISTAKES", "Mistake"]


@dataclass(frozen=True, slots=True)
class Mistake:
    """The operator's parameters, and words that must all be in the error that the task's log ends
    with.

    ``tries`` is how often Airflow may run it; where no retry can help it is 1, whatever ``retries``
    allows.
    """

    parameters: dict[str, Any]
    words: tuple[str, ...]
    tries: int = 1


_WORKS = {"entrypoint": "beside:square", "op_args": [1]}

MISTAKES: dict[str, Mistake] = {
    "more_nodes_at_least_than_at_most": Mistake(
        {**_WORKS, "nnodes": "{{ '4:2' }}"}, ("max_nodes is 2", "min_nodes, which is 4")
    ),
    "nodes_that_are_no_number": Mistake(
        {**_WORKS, "nnodes": "{{ 'some' }}"}, ("nnodes is 'some'", "'min:max'")
    ),
    "no_process": Mistake(
        {**_WORKS, "nproc_per_node": "{{ 0 }}"}, ("nproc_per_node is 0", "1 to 256")
    ),
    "unknown_backend": Mistake(
        {**_WORKS, "rdzv_backend": "{{ 'pigeon' }}"}, ("rdzv_backend is 'pigeon'", "c10d", "etcd")
    ),
    "unknown_option": Mistake(
        {**_WORKS, "rdzv_configs": {"timeout": "{{ 60 }}", "colour": "blue"}},
        ("rdzv_configs has 'colour'", "timeout"),
    ),
    "unknown_start_method": Mistake(
        {**_WORKS, "start_method": "{{ 'teleport' }}"},
        ("start_method is 'teleport'", "spawn, fork, forkserver"),
    ),
    "several_things_at_once": Mistake(
        {
            **_WORKS,
            "nnodes": "{{ '4:2' }}",
            "nproc_per_node": "{{ 0 }}",
            "start_method": "{{ 'teleport' }}",
        },
        ("3 things are wrong", "max_nodes is 2", "nproc_per_node is 0", "'teleport'"),
    ),
    "missing_script": Mistake(
        {"entrypoint": "scripts/missing.py"}, ("scripts/missing.py", "does not exist")
    ),
    "module_that_fails_on_import": Mistake(
        {"entrypoint": "fails_on_import:main"},
        ("fails_on_import", "ZeroDivisionError"),
    ),
    "function_that_is_not_there": Mistake(
        {"entrypoint": "beside:cube", "op_args": [1]}, ("beside", "cube")
    ),
    "wrong_arguments": Mistake(
        {"entrypoint": "beside:square", "op_args": [1, 2, 3]},
        ("square(", "too many positional arguments"),
    ),
    "endpoint_that_nobody_listens_on": Mistake(
        {
            **_WORKS,
            "retries": 1,
            "rdzv_backend": "c10d",
            "rdzv_endpoint": "127.0.0.1:9",  # the discard port
            "rdzv_configs": {"is_host": 0, "timeout": 5, "read_timeout": 5},
        },
        ("127.0.0.1:9",),
        tries=2,
    ),
    "etcd_that_is_not_there": Mistake(
        {
            **_WORKS,
            "retries": 1,
            "nnodes": "1:2",
            "rdzv_id": "nowhere",
            "rdzv_endpoint": "127.0.0.1:9",
            "rdzv_configs": {"timeout": 4},
        },
        ("127.0.0.1:9", "did not answer for 4 s, and never has"),
        tries=2,
    ),
    "log_dir_that_cannot_be_written": Mistake(
        {**_WORKS, "log_dir": "/proc/logs"}, ("log_dir", "/proc/logs")
    ),
    "template_that_renders_to_nothing": Mistake(
        {"entrypoint": "{{ params.script }}"},
        ("entrypoint", "params.script", "rendered to nothing"),
    ),
    "interpreter_that_does_not_exist": Mistake(
        {**_WORKS, "python": "/no/such/python"}, ("/no/such/python",)
    ),
    "folder_that_does_not_exist": Mistake(
        {**_WORKS, "cwd": "/no/such/folder"}, ("/no/such/folder",)
    ),
}
