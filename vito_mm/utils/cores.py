"""Number of processes that suits this machine."""

import os


def count_cores() -> int:
    """Cores that this process may use, on Linux those of its affinity, which job schedulers set."""
    if hasattr(os, 'sched_getaffinity'):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
