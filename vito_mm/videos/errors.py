"""What can go wrong with a video."""


class VideoReadError(RuntimeError):
    """A video could not be opened or decoded.

    Args:
        path (str): File that failed.
        reason (str): Why, in one line.
    """

    def __init__(self, path: str, reason: str) -> None:
        super().__init__(path, reason)
        self.path = path
        self.reason = reason

    def __str__(self) -> str:
        return f'cannot read video {self.path}: {self.reason}'
