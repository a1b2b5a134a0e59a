"""Errors of checkpoint files."""


class CheckpointError(RuntimeError):
    """A checkpoint that cannot initialise the backbone; the message says why and what to do."""


class MissingCheckpointError(CheckpointError):
    """A checkpoint file that is not there."""
