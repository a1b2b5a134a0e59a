"""How many processes this machine takes."""

import os


def count_cores() -> int:
    """Cores that this process may use.

    Returns:
        int: At least 1. On Linux those of its affinity, which job schedulers set.
    """
    if hasattr(os, 'sched_getaffinity'):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
