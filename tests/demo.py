"""``make demo``: trains on real data in an Airflow DAG, without any server, and shows what came of
it.

It runs ``dags/train_digits.py`` by ``dag.test()`` in an Airflow home of its own, ``.airflow/demo``,
which is made the first time.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from tests.airflow.serverless import Outcome, prepare, run

_ROOT = Path(__file__).parents[1]
_HOME = _ROOT / ".airflow" / "demo"
_DAG = "train_digits"

# Of Airflow's log only what this package and the DAG's own tasks say, and nothing but their words.
_QUIET = {
    "AIRFLOW__LOGGING__LOGGING_LEVEL": "WARNING",
    "AIRFLOW__LOGGING__LOG_FORMAT": "%(message)s",
    "AIRFLOW__LOGGING__NAMESPACE_LEVELS": (
        "airflow.task.operators=INFO airflow.task.hooks=INFO py.warnings=ERROR"
    ),
}


def _prepared() -> None:
    """Make the home, unless this version of Airflow has made it already."""
    done = _HOME / f"made-by-airflow-{version('apache-airflow-core')}"
    if not done.exists():
        print(f"Preparing an Airflow in {_HOME.relative_to(_ROOT)}, once ...", flush=True)
        prepare(_HOME)
        done.touch()


def report(outcome: Outcome) -> tuple[str, bool]:
    """What to show of a run, and whether it is what a demonstration should be: a success with an
    accuracy.
    """
    lines = []
    accuracies = []
    for task, xcoms in sorted(outcome.xcoms.items()):
        ranks = xcoms.get("return_value")
        if isinstance(ranks, dict) and all(isinstance(row, dict) for row in ranks.values()):
            lines += [
                f"What each rank of task {task!r} returned:",
                _table(list(ranks.values())),
                "",
            ]
            accuracies += [row["accuracy"] for row in ranks.values() if "accuracy" in row]
    if accuracies:
        lines.append(f"Held-out accuracy: {min(accuracies):.1%}")
    lines += [f"Task {task!r}: {state}" for task, state in sorted(outcome.states.items())]
    return "\n".join(lines), outcome.state == "success" and bool(accuracies)


def _table(rows: Sequence[Mapping[str, Any]]) -> str:
    """One line a row, one column a key, numbers to the right."""
    heads = list(dict.fromkeys(key for row in rows for key in row))
    cells = [heads, *([_text(row.get(head, "")) for head in heads] for row in rows)]
    widths = [max(len(line[column]) for line in cells) for column in range(len(heads))]
    return "\n".join(
        "  " + "  ".join(text.rjust(width) for text, width in zip(line, widths, strict=True))
        for line in cells
    )


def _text(value: Any) -> str:
    return f"{value:.4f}" if isinstance(value, float) else str(value)


def _main() -> int:
    started = time.monotonic()
    try:
        _prepared()
        print(f"Running the DAG {_DAG!r} by dag.test(), without a server ...", flush=True)
        outcome = run(_HOME, {"dags": _ROOT / "dags"}, [_DAG], settings=_QUIET)[_DAG]
    except RuntimeError as error:
        print(error, file=sys.stderr)
        return 1
    text, good = report(outcome)
    print(f"\n{text}\n{time.monotonic() - started:.0f} s")
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(_main())
