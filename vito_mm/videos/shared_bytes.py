"""Bytes in memory that processes share."""

import mmap
import os
import weakref
from collections.abc import Callable
from multiprocessing.context import get_spawning_popen
from multiprocessing.reduction import DupFd
from typing import Any, BinaryIO


class SharedBytes:
    """Bytes in anonymous memory (Linux's ``memfd``), mapped by all processes that have them.

    Forked processes inherit them, spawned ones get the descriptor; there is one copy. A file that
    is mapped itself would be cut off or rewritten under the processes that read it, which the
    kernel ends with a bus error.

    Args:
        fill (Callable): Writes the bytes into the file that it is given.
    """

    def __init__(self, fill: Callable[[BinaryIO], Any]) -> None:
        descriptor = os.memfd_create('vito_mm')
        with open(descriptor, 'wb', closefd=False) as file:
            fill(file)
        self._hold(descriptor)

    def _hold(self, descriptor: int) -> None:
        weakref.finalize(self, os.close, descriptor)
        self.descriptor = descriptor
        size = os.fstat(descriptor).st_size
        self.buffer = mmap.mmap(descriptor, size, access=mmap.ACCESS_READ) if size else b''

    def __reduce__(self) -> tuple[Callable, tuple]:
        if get_spawning_popen() is None:  # for a file, or for another machine
            return _of_bytes, (bytes(self.buffer),)
        return _of_descriptor, (DupFd(self.descriptor),)

    def __deepcopy__(self, memo: dict) -> 'SharedBytes':
        return self


def _of_bytes(data: bytes) -> SharedBytes:
    return SharedBytes(lambda file: file.write(data))


def _of_descriptor(duplicate: Any) -> SharedBytes:
    shared = object.__new__(SharedBytes)
    shared._hold(duplicate.detach())
    return shared
