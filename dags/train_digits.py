"""Distributed training on real data: handwritten digits, two workers, one model.

Two processes train the same small network with DistributedDataParallel, each on its half of the
data, and return what they measured. A second, ordinary task reads that from XCom and compares. Run
it without any server by ``python dags/train_digits.py``.

The data are the UCI optical recognition digits that scikit-learn ships: 1797 images of 8 x 8
pixels.
"""

from __future__ import annotations

from airflow.sdk import dag, task

WORKERS = 2


def fit(epochs: int, learning_rate: float = 0.01) -> dict[str, float]:
    """Train on every rank; what this rank has seen and measured."""
    import torch
    import torch.distributed as dist
    from sklearn.datasets import load_digits
    from torch.nn import functional
    from torch.nn.parallel import DistributedDataParallel

    from llutil.launcher import worker

    torch.set_num_threads(1)
    torch.manual_seed(0)
    dist.init_process_group("gloo")
    rank, world = dist.get_rank(), dist.get_world_size()

    digits = load_digits()
    images = torch.tensor(digits.data / 16, dtype=torch.float32)
    labels = torch.tensor(digits.target)
    order = torch.randperm(len(labels))
    held_out, training = order[:360], order[360:]
    mine = training[rank::world]

    network = torch.nn.Sequential(
        torch.nn.Linear(64, 128), torch.nn.ReLU(), torch.nn.Linear(128, 10)
    )
    model = DistributedDataParallel(network)
    optimizer = torch.optim.Adam(model.parameters(), lr=learning_rate)
    batches = (
        len(training) // world // 32
    )  # the same on every rank, or the last one would wait for ever
    seen, loss_sum = 0, torch.zeros(())
    for epoch in range(epochs):
        shuffled = mine[torch.randperm(len(mine))]
        loss_sum = torch.zeros(())
        for batch in shuffled[: batches * 32].split(32):
            optimizer.zero_grad()
            loss = functional.cross_entropy(model(images[batch]), labels[batch])
            loss.backward()
            optimizer.step()
            loss_sum += loss.detach() / batches
            seen += len(batch)
        worker.progress(epoch + 1, epochs)
    dist.all_reduce(loss_sum)

    with torch.no_grad():
        right = (model(images[held_out]).argmax(1) == labels[held_out]).float().mean()
    print(f"held-out accuracy {right:.3f}")
    del model  # before its process group: freed later, it may wait for ever (torch 2.13)
    dist.destroy_process_group()
    return {
        "rank": rank,
        "world_size": world,
        "samples": seen,
        "loss": float(loss_sum / world),
        "accuracy": float(right),
    }


@dag(schedule=None, catchup=False, tags=["elastic"])
def train_digits():
    train = task.elastic(nproc_per_node=WORKERS, task_id="train")(fit)

    @task
    def compare(ranks: dict[str, dict[str, float]]) -> float:
        """The accuracy, if all ranks have the same model."""
        columns = ["rank", "world_size", "samples", "loss", "accuracy"]
        print("".join(f"{name:>12}" for name in columns))
        for result in ranks.values():
            print("".join(f"{result[name]:>12.7g}" for name in columns))
        for name in ("world_size", "loss", "accuracy"):
            values = {result[name] for result in ranks.values()}
            if len(values) != 1:
                raise ValueError(f"ranks disagree on {name}: {values}")
        if len(ranks) != WORKERS:
            raise ValueError(f"{WORKERS} ranks were asked for, {len(ranks)} answered")
        return ranks["0"]["accuracy"]

    compare(train(epochs=30))


digits_dag = train_digits()

if __name__ == "__main__":
    digits_dag.test()
