"""Files that data workers are reading, so that the death of a worker can be traced to one."""

import os

import torch
from torch.utils.data import get_worker_info

_SLOTS, _PID, _PATH = 256, 8, 4096


class InFlightFiles:
    """A table in shared memory with one line per worker: its process and the file it reads.

    A worker that FFmpeg or the kernel kills can report nothing itself.
    """

    def __init__(self) -> None:
        self._lines = torch.zeros(_SLOTS, _PID + _PATH, dtype=torch.uint8).share_memory_()

    def write(self, path: str) -> None:
        """Enter the file that this worker starts to read, '' after it."""
        worker = get_worker_info()
        if worker is None:
            return
        line = self._lines[worker.id % _SLOTS].numpy()
        line[:_PID] = memoryview(os.getpid().to_bytes(_PID, 'little'))
        data = os.fsencode(path)[:_PATH].ljust(_PATH, b'\0')
        line[_PID:] = memoryview(data)

    def read(self, pid: int) -> str | None:
        """Look up the file that a process was reading when it died, None if it was between two."""
        for line in self._lines.numpy():
            if int.from_bytes(line[:_PID].tobytes(), 'little') == pid:
                return os.fsdecode(line[_PID:].tobytes().rstrip(b'\0')) or None
        return None
