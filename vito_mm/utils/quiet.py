"""Silence while something is only looked at."""

from collections.abc import Iterator
from contextlib import contextmanager

from mmengine.logging import MMLogger


@contextmanager
def quiet_logger(level: str = 'ERROR') -> Iterator[None]:
    """Keep MMEngine from logging where every single parameter got its values, and the like.

    Args:
        level (str): What is less important than this is not logged. Defaults to 'ERROR'.
    """
    logger = MMLogger.get_current_instance()
    before = logger.level
    logger.setLevel(level)
    try:
        yield
    finally:
        logger.setLevel(before)
