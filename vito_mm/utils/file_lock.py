"""A lock of one process on a file or folder."""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout


@contextmanager
def file_lock(file: Path, error: Callable[[str], Exception], wait: float = 0.0) -> Iterator[None]:
    """Hold a lock file for a block; the lock ends with the process and its workers, even killed.

    Args:
        file (Path): Lock file, made if need be, which holds the number of the process.
        error (Callable): Called with that number ('' if unknown) where another process has the
            lock; returns the error to raise.
        wait (float): Seconds to wait for its end. Defaults to 0.

    Raises:
        OSError: If the file cannot be written.
    """
    lock = FileLock(file, is_singleton=False)
    try:
        lock.acquire(timeout=wait)
    except Timeout:
        holder = ''
        with suppress(OSError):
            holder = file.read_text().strip()
        raise error(holder) from None
    try:
        file.write_text(str(os.getpid()))
        yield
    finally:
        lock.release()
