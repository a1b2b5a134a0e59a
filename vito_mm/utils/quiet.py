"""Silence of loggers and warnings for a while."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager

from mmengine.logging import MMLogger


@contextmanager
def ignored_warnings() -> Iterator[None]:
    """Ignore all warnings in a block."""
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        yield


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
