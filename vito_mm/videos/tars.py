"""Members of tars without compression, each read without the rest of its tar."""

import os
import posixpath
import tarfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import BinaryIO

import numpy as np

from vito_mm.utils.hashing import hash64

from .errors import VideoReadError
from .names import endings_of, is_visible

SEPARATOR = '::'
"""Stands between a tar and a member of it in a path: ``shard.tar::cats/1.mp4``."""


def split_member(path: str) -> tuple[str, str] | None:
    """Tar and member that a path names; None if it names a file of its own, or nothing."""
    if SEPARATOR not in path or os.path.lexists(path):
        return None
    parts = path.split(SEPARATOR)
    for count in range(1, len(parts)):
        if os.path.isfile(tar := SEPARATOR.join(parts[:count])):
            return tar, posixpath.normpath(SEPARATOR.join(parts[count:]))
    return None


def read_members(
    archive: tarfile.TarFile, check_deadline: Callable[[], None] = lambda: None
) -> Iterator[tuple[str, tarfile.TarInfo]]:
    """Names and headers of all members.

    Of several members of one name the last counts, as where they are unpacked.
    """
    for member in archive:
        check_deadline()
        yield posixpath.normpath(member.name), member


def followed(path: str, members: dict[str, tarfile.TarInfo], name: str) -> tarfile.TarInfo:
    """The member of a name, or that which it links to; a VideoReadError if there is none."""
    if name.startswith(('/', '../')):
        raise VideoReadError(path, f'names a file outside of the archive: {name}')
    member, seen = members[name], {name}
    while member.issym() or member.islnk():
        folder = posixpath.dirname(member.name) if member.issym() else ''
        target = posixpath.normpath(posixpath.join(folder, member.linkname))
        if target not in members or target in seen:
            reason = f'links to what the archive does not have: {name} -> {target}'
            raise VideoReadError(path, reason)
        seen.add(target)
        member = members[target]
    return member


@contextmanager
def opened_member(tar: str, name: str) -> Iterator[BinaryIO]:
    """Open a member of a tar to read it; the headers of a tar are read once in a process.

    Raises:
        VideoReadError: If it is no tar without compression, has no such file, or is cut off.
        OSError: If the tar cannot be read.
    """
    try:
        place = _index_of(tar).place(name)
        with tarfile.open(tar, 'r:') as archive:
            archive.fileobj.seek(place)
            member = tarfile.TarInfo.fromtarfile(archive)
            if not member.isreg():
                raise VideoReadError(tar, f'its member is no file, and links to none: {name}')
            with archive.extractfile(member) as file:
                yield file
    except tarfile.TarError as error:
        reason = f'no tar without compression, or a damaged one: {os.path.basename(tar)}'
        raise VideoReadError(tar, f'{reason} ({error})') from None


def find_members(tar: str, endings: str | Sequence[str]) -> list[str]:
    """List the members of a tar with one of the endings by their paths, sorted.

    Hidden ones are skipped. What is no tar, or cannot be read, has none; of one that is cut off,
    those before count.
    """
    if not os.path.isfile(tar):  # a pipe would be waited for
        return []
    try:
        members, _ = _read_readable(tar)
    except (tarfile.TarError, OSError):
        return []
    endings = endings_of(endings)
    found = (name for name in members if name.lower().endswith(endings) and is_visible(name))
    return sorted(f'{tar}{SEPARATOR}{name}' for name in found)


def _read_readable(tar: str) -> tuple[dict[str, tarfile.TarInfo], bool]:
    """Members before the end or a damage, and whether it is the end."""
    members: dict[str, tarfile.TarInfo] = {}
    with tarfile.open(tar, 'r:') as archive:
        try:
            members.update(read_members(archive))
        except tarfile.ReadError:
            return members, False
        archive.fileobj.seek(archive.offset)
        return members, archive.fileobj.read(tarfile.BLOCKSIZE) == tarfile.NUL * tarfile.BLOCKSIZE


class _Index:
    """Where the headers of a tar's files begin: 16 bytes per file."""

    def __init__(self, tar: str) -> None:
        # Once for all its videos, so the time limit of one does not count: a large tar would never
        # be read to its end.
        members, self.is_complete = _read_readable(tar)
        places = sorted((hash64(name), self._place(tar, members, name)) for name in members)
        self.hashes, self.places = np.array(places, np.uint64).reshape(-1, 2).T

    @staticmethod
    def _place(tar: str, members: dict[str, tarfile.TarInfo], name: str) -> int:
        try:
            return followed(tar, members, name).offset
        except VideoReadError:
            return members[name].offset

    def place(self, name: str) -> int:
        """Byte at which the header of a file begins."""
        wanted = np.uint64(hash64(name))
        position = np.searchsorted(self.hashes, wanted)
        if position < len(self.hashes) and self.hashes[position] == wanted:
            return int(self.places[position])
        why = '' if self.is_complete else f': it is cut off or damaged after {len(self.places)}'
        raise VideoReadError('', f'the tar has no member {name!r}{why}')


_indices: dict[str, tuple[tuple[int, ...], _Index]] = {}


def _index_of(tar: str) -> _Index:
    status = os.stat(tar)
    version = status.st_ino, status.st_size, status.st_mtime_ns
    known = _indices.get(tar)
    if known is None or known[0] != version:
        known = _indices[tar] = version, _Index(tar)
    return known[1]
