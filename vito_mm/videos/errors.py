"""Errors of videos."""


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
        return f'cannot read video {printable(self.path)}: {self.reason}'


def printable(path: str) -> str:
    """A path in one line: control characters and bytes that are not UTF-8 are escaped."""
    return ''.join(c if c.isprintable() else ascii(c)[1:-1] for c in path)
