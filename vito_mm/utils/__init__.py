"""Helpers without a subject of their own; nothing in here imports another part of the package."""


def register_all_modules() -> None:
    """Do nothing: ``import vito_mm`` has registered all. ``mmengine.hub.get_model`` calls it."""
