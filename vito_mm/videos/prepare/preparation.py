"""Preparation of a tree of videos: a manifest with the facts of each; parallel and resumable."""

import contextlib
import glob
import math
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from vito_mm.utils.atomic import written_aside
from vito_mm.utils.cores import count_cores
from vito_mm.utils.file_lock import file_lock
from vito_mm.utils.progress import Progress
from vito_mm.utils.remote_files import is_address
from vito_mm.utils.worker_pool import WorkerLost, WorkError, run_in_workers
from vito_mm.videos.file_checks import MAX_PIXELS
from vito_mm.videos.frame_archives import size_and_time
from vito_mm.videos.manifest import VIDEO_EXTENSIONS, part_name, to_line

from .integrity import BAD, MEASURED, hash_to_expect, import_av, inspect_video
from .reencoding import Copier, Encoding, ReencodingError, reencode_video, unfinished_copy
from .report import Summary
from .row_index import RowIndex
from .source import read_rows, search

_COPY_COLUMNS = {'source', 'source_sha256', 'source_bytes', 'source_mtime_ns', 'encoding'}


class PreparationStopped(RuntimeError):
    """The job could not go on; what is done is kept, and the message says how to continue."""


def prepare_videos(
    source: str | os.PathLike,
    out: str | os.PathLike,
    *,
    workers: int | None = None,
    check: bool = False,
    force: bool = False,
    time_limit: float | None = 3600.0,
    max_pixels: int = MAX_PIXELS,
    copies: str | os.PathLike | None = None,
    encoding: Encoding | None = None,
    extensions: Sequence[str] = VIDEO_EXTENSIONS,
) -> Summary:
    """Inspect all videos of a folder or manifest, re-encode them if asked, and list them.

    Finished videos are appended to ``<out>.parts/`` at once. A job that was stopped, in whatever
    way, goes on from there when it is started again. At the end the parts become the manifest,
    sorted by path. Videos that the manifest has already, with the same size and time of change, are
    not read again; those that could not be read through (no permission, time limit, a process that
    died) are.

    Args:
        source: Folder, searched with its sub-folders, tar of videos, or manifest. A file is read
            once, whatever the number of rows with parts of it. Other columns of the manifest are
            kept, and of ``out``; so is ``fps`` of folders and tars of images, which goes by it.
            ``notes`` and ``reason`` of rows without a ``verdict`` are refused, as they would be
            replaced. In the place of a tar that holds videos there are rows of these.
        out: Manifest to write, ending in ``.jsonl``. May be ``source``.
        workers: Number of processes. Defaults to the number of cores.
        check: Decode all frames to find damage; hashes that ``out`` has of files with the same size
            and time of change are compared as well. Defaults to False. Hashes in a manifest
            ``source`` are always, but those of bad rows.
        force: Read all videos again. Defaults to False.
        time_limit: Seconds a video may take, None or 0 for any. Defaults to 3600.
        max_pixels: Largest believable number of pixels in a frame. Defaults to MAX_PIXELS.
        copies: Folder for re-encoded copies, under the same relative paths; the manifest lists
            these. Implies ``check``. Defaults to None: nothing is re-encoded.
        encoding: How to encode them. Defaults to ``Encoding()``.
        extensions: Endings of the files that are taken from a folder. Defaults to VIDEO_EXTENSIONS.

    Returns:
        Summary: Counts over the rows of the manifest.

    Raises:
        ValueError: If an argument is wrong, or a row of a manifest.
        FileNotFoundError: If there is no such folder, tar or manifest, or no video in it.
        OSError: If ``out`` cannot be written.
        ImportError: If PyAV is not installed.
        PreparationStopped: If no more can be written, e.g. as the disk is full.
        KeyboardInterrupt: On Ctrl-C; the same call continues.
    """
    import_av()
    source, out = os.path.abspath(source), Path(os.path.abspath(out))
    if out.suffix != '.jsonl':
        raise ValueError(f'the manifest to write must end in .jsonl, got {str(out)!r}')
    if workers is not None and workers < 1:
        raise ValueError(f'workers must be at least 1, got {workers}')
    if time_limit is not None and time_limit < 0:
        raise ValueError(f'time_limit must be 0 (none) or more seconds, got {time_limit}')
    if max_pixels < 1:
        raise ValueError(f'max_pixels must be at least 1, got {max_pixels}')
    is_folder = os.path.isdir(source)
    is_searched = is_folder or source.lower().endswith('.tar')
    rows = search(source, extensions) if is_searched else read_rows(Path(source))
    copier = None
    if copies is not None:
        root = source if is_folder else os.path.dirname(source)
        copier = Copier(os.path.abspath(copies), root, encoding or Encoding())
        copier.check([row['path'] for row in rows], source if is_folder else None)
    job = _Job(
        *(out, check, force, max_pixels, copier, is_searched),
        hashes=not is_searched and source != str(out),
    )
    with _locked(job.parts):
        summary = job.run(rows, workers or count_cores(), time_limit or None)
    with contextlib.suppress(OSError):  # e.g. another job has started
        (job.parts / 'lock').unlink()
        job.parts.rmdir()
    return summary


@contextlib.contextmanager
def _locked(parts: Path) -> Iterator[None]:
    """Make the folder of parts, and keep a second job with the same output away."""

    def busy(process: str) -> ValueError:
        return ValueError(
            f'another job (process {process}) writes this manifest ({parts}); wait for it, or '
            'choose another output'
        )

    with contextlib.ExitStack() as held:
        try:
            parts.mkdir(parents=True, exist_ok=True)
            held.enter_context(file_lock(parts / 'lock', busy))
        except OSError as error:
            message = f'cannot write next to the manifest ({error.strerror}); choose another output'
            raise type(error)(error.errno, message, str(parts.parent)) from None
        yield


@dataclass(frozen=True)
class _Task:
    """A video to inspect or re-encode in a process."""

    path: str
    expected_sha256: str | None = None
    target: str | None = None
    fps: float | None = None


def _work(
    task: _Task, check: bool, max_pixels: int, encoding: Encoding | None
) -> dict[str, Any] | ReencodingError:
    known = task.expected_sha256, max_pixels
    if task.target is None:
        return inspect_video(task.path, check, *known, fps=task.fps)
    try:
        return reencode_video(task.path, task.target, encoding, *known, fps=task.fps)
    except ReencodingError as error:
        return error


@dataclass
class _Job:
    """Videos to rows, rows to parts, parts to the manifest."""

    out: Path
    check: bool
    force: bool
    max_pixels: int
    copier: Copier | None
    from_folder: bool
    """The manifest alone says which parts of a video are rows."""
    hashes: bool
    """Hashes in the input are binding."""

    def __post_init__(self) -> None:
        key = 'path' if self.copier is None else 'source'
        self.known = RowIndex(key)  # rows of the manifest as it is
        self.done = RowIndex(key)  # rows of the parts
        self.parts = self.out.with_name(f'{self.out.name}.parts')
        self.in_flight = set()

    def run(self, rows: list[dict[str, Any]], workers: int, time_limit: float | None) -> Summary:
        """Do what is not done yet and write the manifest."""
        for leftover in self.out.parent.glob(f'{glob.escape(self.out.name)}.*.tmp'):
            leftover.unlink(missing_ok=True)  # of a merge that was killed
        if self.out.exists():
            self.known.add(self.out, torn=False)
        # With force, only what a job with force did counts.
        for shard in sorted(self.parts.glob('forced-*.jsonl' if self.force else '*.jsonl')):
            self.done.add(shard, torn=True)
        if self.from_folder:
            rows = [part for row in rows for part in self._parts(row)]
        self._inspect(rows, workers, time_limit)
        summary = self._merge(rows)
        for shard in self.parts.glob('*.jsonl'):
            shard.unlink()
        return summary

    def _parts(self, row: dict[str, Any]) -> list[dict[str, Any]]:
        """Rows that the manifest has of a video in the place of one."""
        known = self.known.parts(self._listed(row['path'])).values()
        wanted = [{name: part[name] for name in ('start', 'end') if name in part} for part in known]
        return [{**part, **row} for part in wanted] or [row]

    def _inspect(self, rows, workers: int, time_limit: float | None) -> None:
        number = len(list(self.parts.iterdir()))
        shard = self.parts / f'{"forced-" if self.force else ""}{number:05d}.jsonl'
        encoding = self.copier and self.copier.encoding
        work = partial(_work, check=self.check, max_pixels=self.max_pixels, encoding=encoding)
        progress = Progress(len(rows))
        results = run_in_workers(work, self._tasks(rows, progress), workers, time_limit)
        try:
            # Signals end the job between two rows, and a worker's death is not the job's.
            with progress, contextlib.closing(results), shard.open('wb') as lines:
                for task, result in results:
                    self.in_flight.discard(task)
                    if isinstance(result, WorkerLost):
                        self._clean(task)
                    row = self._to_row(task, result)
                    lines.write(to_line(row))
                    lines.flush()
                    progress.advance(bad=row['verdict'] == BAD)
        except OSError as error:
            raise PreparationStopped(
                f'cannot write {self.parts}: {error.strerror}. Make room and run the same command '
                'again: it goes on from here'
            ) from error
        finally:
            for task in self.in_flight:
                self._clean(task)
        self.done.add(shard, torn=True)

    def _clean(self, task: _Task) -> None:
        """Remove what a process that was ended may have left."""
        if task.target is not None:
            with contextlib.suppress(OSError):
                unfinished_copy(task.target).unlink()

    def _tasks(self, rows, progress: Progress) -> Iterator[_Task]:
        """Videos that are not done, each once."""
        seen = set()
        for row in rows:
            path = row['path']
            if path in seen:
                progress.advance(skipped=True)
                continue
            seen.add(path)
            key = self._listed(path)
            fps = row.get('fps') if _goes_by_fps(path) else None
            now = _size_and_time(path)
            if self._is_done(key, now, fps):
                progress.advance(skipped=True)
                continue
            expected = hash_to_expect(row) if self.hashes else None
            known = self.known.get(key) if expected is None and self.check else None
            if known and self._is_as_listed(known, now):  # a file that was replaced has another
                known = {**known, **self._source_facts(known)}
                expected = known.get('expected_sha256') or hash_to_expect(known)
            target = self.copier and self.copier.target(path)
            task = _Task(path, expected, target, row.get('fps'))
            self.in_flight.add(task)
            yield task

    def _is_done(
        self, key: str, now: tuple[int | None, int | None] | None, fps: float | None
    ) -> bool:
        if (row := self.done.get(key)) and self._is_current(row, now, fps):
            return True
        self.done.drop(key)
        row = None if self.force else self.known.get(key)
        if row is None or not self._is_current(row, now, fps):
            return False
        # Not read through, or of other bytes than once: perhaps this time.
        through = self._source_facts(row)['sha256'] is not None
        return through and not (self.check and 'expected_sha256' in row)

    def _source_facts(self, row: dict[str, Any]) -> dict[str, Any]:
        """Facts of the inspected video, which is the source where a row lists a copy."""
        prefix = 'source_' if self.copier is not None and 'source_bytes' in row else ''
        return {name: row.get(prefix + name) for name in ('bytes', 'mtime_ns', 'sha256')}

    def _is_as_listed(self, row: dict[str, Any], now: tuple[int | None, int | None] | None) -> bool:
        """True if a file has the size and time of change of its row."""
        facts = self._source_facts(row)
        return now is None or (facts['bytes'], facts['mtime_ns']) == now

    def _is_current(
        self, row: dict[str, Any], now: tuple[int | None, int | None] | None, fps: float | None
    ) -> bool:
        """True if a row is of the file as it is, and was made as this job would make it."""
        if not self._is_as_listed(row, now):
            return False
        # Of a copy the rate is measured, in thousandths.
        if fps is not None and not math.isclose(fps, row.get('fps', 0), abs_tol=2e-3):
            return False
        if self.copier is None:
            return row.get('verdict') == BAD or not self.check or bool(row.get('checked'))
        if row.get('encoding') != str(self.copier.encoding):
            return False
        if row['verdict'] == BAD:
            return True
        try:
            copy = os.stat(self.out.parent / row['path'])
        except OSError:
            return False
        return (copy.st_size, copy.st_mtime_ns) == (row['bytes'], row['mtime_ns'])

    def _to_row(self, task: _Task, result: Any) -> dict[str, Any]:
        """Row of a task from its result or failure."""
        if isinstance(result, WorkError):
            result = self._bad(task, f'cannot be understood: {result}')
        elif isinstance(result, ReencodingError):
            if result.lasting:
                raise PreparationStopped(
                    f'{result}. Put that right and run the same command again: it goes on from here'
                )
            result = self._bad(task, f'cannot be re-encoded: {result.reason}')
        elif isinstance(result, WorkerLost):
            if result.late:
                reason = f'over the time limit: {result}'
            else:
                reason = f'ends the process that reads it: {result}, twice'
            result = self._bad(task, reason)
        for name in ('path', 'source'):
            if name in result:
                result[name] = self._listed(result[name])
        return result

    def _bad(self, task: _Task, reason: str) -> dict[str, Any]:
        """Row of a video that could not be read through."""
        row: dict[str, Any] = {'path': task.path}
        with contextlib.suppress(OSError):
            row['bytes'], row['mtime_ns'] = size_and_time(task.path)
        row.update(verdict=BAD, reason=' '.join(reason.split()))
        if self.copier is not None:
            row.update(source=task.path, encoding=str(self.copier.encoding))
        return row

    def _listed(self, path: str) -> str:
        """A path as the manifest has it."""
        folder = str(self.out.parent).rstrip(os.sep) + os.sep
        return path.removeprefix(folder)

    def _merge(self, rows: list[dict[str, Any]]) -> Summary:
        """Write the manifest, one line at a time."""
        summary = Summary()
        order = []
        for number, row in enumerate(rows):
            key = self._listed(row['path'])
            order.append((key if self.copier is None else self._measured(key)['path'], number))
        order.sort()
        with written_aside(self.out) as unfinished, unfinished.open('wb') as lines:
            for _, number in order:
                row = rows[number]
                key = self._listed(row['path'])
                measured = self._measured(key)
                kept = {**self.known.parts(key).get(part_name({**row, 'path': key}), {}), **row}
                rate = kept.get('fps') if _goes_by_fps(row['path']) else None
                kept = {name: value for name, value in kept.items() if name not in MEASURED}
                if rate is not None:  # of frames that cannot be read it is all that is known
                    measured.setdefault('fps', rate)
                if self.copier is None and 'source' not in row:
                    kept = {name: kept[name] for name in kept if name not in _COPY_COLUMNS}
                row = {**kept, **measured}
                summary.add(row)
                lines.write(to_line(row))
        return summary

    def _measured(self, key: str) -> dict[str, Any]:
        row = self.done.get(key) or self.known.get(key)
        names = {'path', *MEASURED, *(_COPY_COLUMNS if self.copier else ())}
        return {name: value for name, value in row.items() if name in names}


def _size_and_time(path: str) -> tuple[int | None, int | None] | None:
    """Size and time of change of a file, Nones if it cannot be looked at.

    None for an address, whose video is taken to be as it was.
    """
    try:
        return None if is_address(path) else size_and_time(path)
    except OSError:
        return None, None


def _goes_by_fps(path: str) -> bool:
    """True if the frame rate of the manifest is that of the video, which has none itself."""
    return path.lower().endswith('.tar') or os.path.isdir(path)
