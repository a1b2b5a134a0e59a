"""Command line of the preparation."""

import sys

from vito_mm.utils.worker_pool import stopped_by_signals

from .integrity import BAD
from .preparation import PreparationStopped, prepare_videos
from .reencoding import Encoding


def run(
    source: str,
    out: str,
    reencode: str | None,
    short_side: int,
    gop: int,
    crf: int,
    preset: str,
    fastdecode: bool,
    no_b_frames: bool,
    **options,
) -> int:
    """Run the command line, and print the summary or the error in one line.

    ``reencode`` is the folder for copies, if any; for the arguments that follow see
    :class:`Encoding`, for the rest :func:`prepare_videos`.

    Returns:
        int: Status of the command: 0 if the job was finished, bad videos or not; 1 if it had to
        stop; 2 if an argument is wrong; 130 after Ctrl-C or SIGTERM.
    """
    with stopped_by_signals():
        try:
            encoding = Encoding(short_side, gop, crf, preset, fastdecode, not no_b_frames)
            summary = prepare_videos(source, out, copies=reencode, encoding=encoding, **options)
        except KeyboardInterrupt:
            print(
                'stopped; what is done is kept. Run the same command again to go on',
                file=sys.stderr,
            )
            return 130
        except (PreparationStopped, ValueError, OSError, ImportError) as error:
            print(f'error: {error}', file=sys.stderr)
            return 1 if isinstance(error, PreparationStopped) else 2
    print(summary)
    if hint := summary.hint():
        print(hint)
    if summary.num_bad:
        print(f'{summary.num_bad} videos are bad: rows with "verdict": "{BAD}" in {out}')
    print(f'manifest {out}')
    return 0
