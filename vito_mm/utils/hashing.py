"""Hashes of texts and of files: the same on every machine and in every run."""

import hashlib
import os
from typing import Any


def hash64(*texts: str) -> int:
    """Hash file names and titles, which may have lone surrogates, uniformly to 64 bits."""
    data = '\0'.join(texts).encode('utf-8', 'surrogatepass')
    return int.from_bytes(hashlib.blake2b(data, digest_size=8).digest(), 'big')


def priority_of(path: str, seed: int, *others: str) -> int:
    """Pseudo-random priority of a video, which decides whether it is taken before others.

    It follows from the file's name without its folder, so that it stays where a data set is moved
    or grows.

    Args:
        path (str): The video.
        seed (int): Of the choice.
        *others (str): Texts that it depends on too, such as a class.

    Returns:
        int: Uniform among 64 bits; the lowest are taken.
    """
    return hash64(str(seed), os.path.basename(path), *others)


def sha256_of_file(file: str | os.PathLike) -> str:
    """SHA-256 of a file's content in hexadecimal digits."""
    return _digest_of(file, hashlib.sha256())


def sha1_of_file(file: str | os.PathLike) -> str:
    """SHA-1 of a file's content in hexadecimal digits: it names a file, and protects nothing."""
    return _digest_of(file, hashlib.sha1(usedforsecurity=False))


def _digest_of(file: str | os.PathLike, digest: Any) -> str:
    with open(file, 'rb') as content:
        while block := content.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()
