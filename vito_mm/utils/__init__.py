"""Helpers without a subject of their own; nothing in here imports another part of the package."""
