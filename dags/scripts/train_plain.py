"""An ordinary PyTorch training script: it knows nothing of Airflow, nor of what starts it.

It runs as well under ``torchrun --nproc-per-node 2 train_plain.py --epochs 20``.
"""

import argparse
import os

import torch
import torch.distributed as dist
from sklearn.datasets import load_wine
from torch.nn import functional
from torch.nn.parallel import DistributedDataParallel


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--learning-rate", type=float, default=0.02)
    parser.add_argument("--verbose", action="store_true")
    options = parser.parse_args()

    torch.manual_seed(0)
    torch.set_num_threads(1)
    dist.init_process_group("gloo")
    rank, world = dist.get_rank(), dist.get_world_size()

    wine = load_wine()
    features = torch.tensor(wine.data, dtype=torch.float32)
    features = (features - features.mean(0)) / features.std(0)
    labels = torch.tensor(wine.target)
    order = torch.randperm(len(labels))
    held_out, mine = order[:38], order[38:][rank::world]

    model = DistributedDataParallel(torch.nn.Linear(features.shape[1], 3))
    optimizer = torch.optim.SGD(model.parameters(), lr=options.learning_rate, momentum=0.9)
    for epoch in range(options.epochs):
        optimizer.zero_grad()
        loss = functional.cross_entropy(model(features[mine]), labels[mine])
        loss.backward()
        optimizer.step()
        if options.verbose:
            print(f"epoch {epoch + 1}: loss {loss.item():.3f}")

    accuracy = (model(features[held_out]).argmax(1) == labels[held_out]).float().mean()
    print(f"rank {os.environ['RANK']} of {world}: held-out accuracy {accuracy:.3f}")
    del model  # before its process group: freed later, it may wait for ever (torch 2.13)
    dist.destroy_process_group()
    if accuracy < 0.9:
        raise SystemExit(f"accuracy {accuracy:.3f} is below 0.9")


if __name__ == "__main__":
    main()
