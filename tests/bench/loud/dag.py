"""Tasks that print a lot, for the benchmark of logs: a plain one, a job, and a training."""

from __future__ import annotations

from airflow.sdk import DAG, task

LINES = 100_000
LINE = "step {} loss 0.123456 lr 0.001 throughput 1234 samples/s"


def _print_lines() -> None:
    for number in range(LINES):
        print(LINE.format(number))


def _write_lines(stop: str, silent: bool) -> None:
    """Print 100,000 lines a second, or into nothing, until the file ``stop`` is there."""
    import os
    import time
    from pathlib import Path

    out = os.open(os.devnull, os.O_WRONLY) if silent else 1
    lines, due = 0, time.monotonic()
    while not Path(stop).exists():
        data = b"".join(b"%s\n" % LINE.format(lines + n).encode() for n in range(1000))
        while data:
            data = data[os.write(out, data) :]
        lines += 1000
        due += 0.01
        time.sleep(max(0.0, due - time.monotonic()))


def _train(blocks: int, steps: int, step_time: float) -> dict[str, list[float]]:
    """Seconds of a step in each block: without output, and with a process beside rank 0 that prints
    into nothing, or into the log.
    """
    import multiprocessing
    import tempfile
    import time
    from pathlib import Path

    import torch
    import torch.distributed as dist

    torch.set_num_threads(1)
    dist.init_process_group("gloo")
    model = torch.nn.parallel.DistributedDataParallel(torch.nn.Linear(32, 1))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.001)
    data = torch.ones(8, 32)
    kinds = ("quiet", "nothing", "log")
    found: dict[str, list[float]] = {kind: [] for kind in kinds}
    for _ in range(blocks):
        for kind in kinds:
            with tempfile.TemporaryDirectory() as folder:
                printer = None
                if dist.get_rank() == 0 and kind != "quiet":
                    context = multiprocessing.get_context("fork")
                    arguments = (f"{folder}/stop", kind == "nothing")
                    printer = context.Process(target=_write_lines, args=arguments)
                    printer.start()
                dist.barrier()
                began = time.perf_counter()
                for _ in range(steps):
                    end = time.perf_counter() + step_time
                    optimizer.zero_grad()
                    model(data).mean().backward()
                    optimizer.step()
                    if (left := end - time.perf_counter()) > 0:  # as for a GPU
                        time.sleep(left)
                found[kind].append((time.perf_counter() - began) / steps)
                if printer is not None:
                    Path(folder, "stop").touch()
                    printer.join()
    dist.destroy_process_group()
    return found


with DAG("loud"):
    task(task_id="plain")(_print_lines)()
    task.elastic(task_id="job", nproc_per_node=1)(_print_lines)()
    task.elastic(task_id="training", nproc_per_node=2)(_train)(12, 100, 0.01)
