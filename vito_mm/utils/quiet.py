"""Silence of loggers for a while."""

from collections.abc import Iterator
from contextlib import contextmanager

from mmengine.logging import MMLogger


@contextmanager
def quiet_logger(level: str = 'ERROR') -> Iterator[None]:
    """Keep MMEngine from logging what is less important than ``level`` in a block."""
    logger = MMLogger.get_current_instance()
    before = logger.level
    logger.setLevel(level)
    try:
        yield
    finally:
        logger.setLevel(before)
