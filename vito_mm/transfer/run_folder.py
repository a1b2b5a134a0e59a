"""Logged values, config and last checkpoint in the work dir of any MMEngine run."""

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mmengine.config import Config


def scalars(work_dir: Path) -> list[dict]:
    """Read all lines that a run logged, oldest first, each step once.

    A resumed run has one log per start. What an earlier start logged beyond the step from which a
    later one went on is dropped: those steps were taken again. Lines of training hold ``loss``.
    """
    lines: list[dict] = []
    for file in sorted(Path(work_dir).glob('*/vis_data/scalars.json')):
        new = _parsed(file)
        again = next((line['step'] for line in new if 'loss' in line), math.inf)
        outdated = (i for i, line in enumerate(lines) if 'loss' in line and line['step'] >= again)
        lines = lines[: next(outdated, len(lines))] + new
    # Evaluations count epochs where training counts iterations, so the two are kept apart.
    latest = {('loss' in line, line['step']): i for i, line in enumerate(lines)}
    return [lines[i] for i in sorted(latest.values())]


def training_curve(lines: Sequence[dict], key: str = 'loss') -> tuple[list[int], list[float]]:
    """Steps and values of training, from the lines of :func:`scalars`."""
    found = [line for line in lines if 'loss' in line and key in line]
    return [line['step'] for line in found], [line[key] for line in found]


def evaluation_curve(lines: Sequence[dict], key: str) -> tuple[list[int], list[float]]:
    """Steps and values of a metric, from the lines of :func:`scalars`.

    MMEngine counts epochs here in an epoch-based run, so the step of an evaluation is the last
    training step that was logged before it.
    """
    steps, values, step = [], [], 0
    for line in lines:
        if 'loss' in line:
            step = line['step']
        elif key in line:
            steps.append(step)
            values.append(line[key])
    return steps, values


def last_checkpoint(work_dir: Path) -> Path | None:
    """Find the checkpoint that a run wrote last, also where the folder was moved since."""
    pointer = Path(work_dir) / 'last_checkpoint'
    if not pointer.is_file():
        return None
    named = Path(pointer.read_text().strip())
    return next((file for file in (named, pointer.with_name(named.name)) if file.is_file()), None)


def dumped_config(work_dir: Path) -> 'Config':
    """Read the config with which a run was started, every base merged.

    Raises:
        FileNotFoundError: If MMEngine has not written one.
    """
    from mmengine.config import Config

    work_dir = Path(work_dir)
    files = list(work_dir.glob('*.py')) or list(work_dir.glob('*/vis_data/config.py'))
    if not files:
        raise FileNotFoundError(f'{work_dir} holds no config: the run ended before it wrote one')
    return Config.fromfile(max(files, key=lambda file: file.stat().st_mtime))


def read_json(file: Path) -> dict[str, Any] | None:
    """Read a JSON object; None if the file is missing or holds something else."""
    try:
        content = json.loads(file.read_text())
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError, json.JSONDecodeError):
        return None
    return content if isinstance(content, dict) else None


def _parsed(file: Path) -> list[dict]:
    """Lines of a log. A kill or a full disk may have torn one apart, which costs that one."""
    lines = []
    for text in file.read_text(errors='replace').splitlines():
        try:
            line = json.loads(text)
        except json.JSONDecodeError:
            continue
        if isinstance(line, dict) and isinstance(line.get('step'), int):
            lines.append(line)
    return lines
