"""Progress of work on many videos or files."""

import sys
import time

_SAY_EVERY = 30.0  # seconds, where there is no terminal


class Progress:
    """Bar on a terminal, a line every half a minute elsewhere; on stderr.

    Args:
        total (int): Number of items.
        title (str): Name of the work, on the bar. Defaults to 'videos'.
        bad (str, optional): Word for the items that :meth:`advance` counts as bad. Defaults to
            'bad'.
        items (str): Word for the items. Defaults to 'videos'.
    """

    def __init__(
        self, total: int, title: str = 'videos', bad: str | None = 'bad', items: str = 'videos'
    ) -> None:
        # Comes with MMEngine.
        from rich.console import Console
        from rich.progress import (
            BarColumn,
            MofNCompleteColumn,
            TextColumn,
            TimeElapsedColumn,
            TimeRemainingColumn,
        )
        from rich.progress import Progress as RichProgress

        self.total, self.done, self.skipped, self.bad = total, 0, 0, 0
        self.bad_word = bad
        self.items = items if title == items else f'{items} ({title})'
        self.start = self.said = time.monotonic()
        console = Console(stderr=True)
        # Without the thread that refreshes: processes are forked.
        self.bar = RichProgress(
            TextColumn(title),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn('{task.fields[rate]}'),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            console=console,
            auto_refresh=False,
            disable=not console.is_terminal,
        )
        self.task = self.bar.add_task(title, total=total, rate='')

    def __enter__(self) -> 'Progress':
        self.bar.__enter__()
        return self

    def __exit__(self, *exception) -> None:
        self._show()
        self.bar.__exit__(*exception)

    def advance(self, count: int = 1, skipped: bool = False, bad: int = 0) -> None:
        """Count items, some of them bad, or done before (``skipped``)."""
        self.done += count
        self.skipped += count * skipped
        self.bad += bad
        if time.monotonic() - self.said > (_SAY_EVERY if self.bar.disable else 0.2):
            self._show()

    def _show(self) -> None:
        self.said = time.monotonic()
        rate = (self.done - self.skipped) / max(self.said - self.start, 1e-9)
        text = f'{rate:.1f} per second' + (f', {self.bad} {self.bad_word}' if self.bad_word else '')
        if self.bar.disable:
            left = f', {(self.total - self.done) / rate / 60:.0f} min left' if rate else ''
            line = f'{self.done} of {self.total} {self.items}, {text}{left}'
            print(line, file=sys.stderr, flush=True)
        else:
            self.bar.update(self.task, completed=self.done, rate=text, refresh=True)
