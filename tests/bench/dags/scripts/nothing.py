"""A worker that has torch, and does nothing."""

import torch.distributed  # noqa: F401 - what is measured
