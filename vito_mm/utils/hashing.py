"""Numbers that follow from text alone: the same on every machine and in every run."""

import hashlib
import os


def hash64(*texts: str) -> int:
    """Hash of some texts.

    Args:
        *texts (str): File names and titles, which may have lone surrogates.

    Returns:
        int: Uniform among 64 bits.
    """
    data = '\0'.join(texts).encode('utf-8', 'surrogatepass')
    return int.from_bytes(hashlib.blake2b(data, digest_size=8).digest(), 'big')


def priority_of(path: str, seed: int, *others: str) -> int:
    """Pseudo-random number of a video, which decides whether it is taken before others.

    It follows from the file's name without its folder, so that it stays where a data set is moved
    or grows.

    Args:
        path (str): The video.
        seed (int): Of the choice.
        *others (str): What it is to depend on too, such as a class.

    Returns:
        int: Uniform among 64 bits; the lowest are taken.
    """
    return hash64(str(seed), os.path.basename(path), *others)
