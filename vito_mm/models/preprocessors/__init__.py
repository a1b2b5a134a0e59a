"""From what the data loader yields to what the backbone takes."""

from .deferred import DeferredPreprocessor, DeferredViews

__all__ = ['DeferredPreprocessor', 'DeferredViews']
