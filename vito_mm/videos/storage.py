"""Videos that are not files of their own: members of tars, and those in object storage.

Their bytes are put into memory (Linux's ``memfd``), which has a name like a file, so that all
decoders and readers take them as they take files.
"""

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from http.client import HTTPException
from typing import Any, BinaryIO

from vito_mm.utils.remote_files import BLOCK, fetch, is_address

from .errors import VideoReadError
from .file_checks import CANNOT_READ
from .tars import SEPARATOR, opened_member, split_member


@contextmanager
def local_name(
    path: str,
    backend_args: Mapping[str, Any] | None = None,
    check_deadline: Callable[[], None] = lambda: None,
) -> Iterator[str]:
    """Give the name under which a video can be opened: its path, or that of its bytes in memory.

    A file of its own, which need not exist, is not touched.

    Args:
        path (str): File or folder, member of a tar (``shard.tar::cats/1.mp4``, unless that is the
            name of a file), or address.
        backend_args (Mapping, optional): Arguments of :func:`mmengine.fileio.get`. With a
            ``backend`` other than ``'local'``, it reads all paths. Defaults to None: the prefix of
            an address decides.
        check_deadline (Callable): Called between blocks that are read. Defaults to nothing.

    Raises:
        VideoReadError: If it cannot be read. Nothing is tried again.
        ImportError: If the client of a storage is not installed.
    """
    backend = (backend_args or {}).get('backend')
    is_remote = is_address(path) if backend is None else backend != 'local'
    if is_remote:
        with _memory() as file:
            try:
                fetch(path, backend_args, file, check_deadline)
            except (VideoReadError, ImportError):  # the time limit, a client that is missing
                raise
            except Exception as error:  # clients of storages raise anything
                raise VideoReadError(path, _reason(path, error)) from None
            yield _name(file)
    elif (found := split_member(path)) is not None:
        with _memory() as file:
            with opened_member(*found) as member:
                while block := member.read(BLOCK):
                    file.write(block)
                    check_deadline()
            yield _name(file)
    elif SEPARATOR in path and not os.path.lexists(path):
        raise VideoReadError(path, f'no such file, and no tar {path.split(SEPARATOR)[0]!r}')
    else:
        yield path


def _memory() -> BinaryIO:
    return open(os.memfd_create('video'), 'w+b')


def _name(file: BinaryIO) -> str:
    file.flush()
    return f'/proc/self/fd/{file.fileno()}'


def _reason(path: str, error: Exception) -> str:
    """Reason in one line."""
    remedy = ''
    if SEPARATOR in path:
        remedy = ' (members are read from tars on disks only: copy or mount the tar)'
    name = '' if isinstance(error, OSError | HTTPException) else f'{type(error).__name__}: '
    return ' '.join(f'{CANNOT_READ}: {name}{error}{remedy}'.split())
