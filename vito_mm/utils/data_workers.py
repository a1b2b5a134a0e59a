"""Data workers of PyTorch whose death may be caught."""

import signal
from collections.abc import Iterator
from typing import Any

from torch.utils.data import DataLoader


def start_workers(dataloader: DataLoader) -> Iterator[Any]:
    """Start the workers of a data loader, without PyTorch's handler of their death.

    The handler raises in the middle of whatever the main process computes. Without it the death is
    noticed, within seconds, when a batch is waited for.
    """
    before = signal.getsignal(signal.SIGCHLD)
    iterator = iter(dataloader)
    if before is None or getattr(before, '__module__', '').startswith('torch.utils.data'):
        before = signal.SIG_DFL
    signal.signal(signal.SIGCHLD, before)
    return iterator
