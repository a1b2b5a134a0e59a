"""Where the rows of a stage are worked on: this machine, or many through Ray."""

ENGINES = ('local', 'ray')
"""Engines by the name that the command line knows."""
