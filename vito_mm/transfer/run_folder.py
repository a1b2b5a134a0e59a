"""What MMEngine leaves in the work dir of a run: logged values, config, last checkpoint."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mmengine.config import Config


def scalars(work_dir: Path) -> list[dict]:
    """All lines that a run logged, oldest first, each step once.

    A resumed run has one log a start. What an earlier start logged beyond the step from which a
    later one went on is left out: those steps were taken again.

    Args:
        work_dir (Path): Folder of the run.

    Returns:
        list[dict]: Lines of training, which hold ``loss``, and of evaluations. Empty where nothing
        was logged.
    """
    lines: list[dict] = []
    for file in sorted(Path(work_dir).glob('*/vis_data/scalars.json')):
        new = _parsed(file)
        again = next((line['step'] for line in new if _is_training(line)), float('inf'))
        outdated = (
            i for i, line in enumerate(lines) if _is_training(line) and line['step'] >= again
        )
        lines = lines[: next(outdated, len(lines))] + new
    # Evaluations count epochs where training counts iterations, so the two are told apart.
    latest = {(_is_training(line), line.get('step')): i for i, line in enumerate(lines)}
    return [lines[i] for i in sorted(latest.values())]


def last_value(work_dir: Path, key: str) -> float | None:
    """Value of a key in the last line that has it.

    Args:
        work_dir (Path): Folder of the run.
        key (str): Name of the value, such as ``'mIoU'``.

    Returns:
        float, optional: The value; None where it was never logged.
    """
    return next((line[key] for line in reversed(scalars(work_dir)) if key in line), None)


def training_curve(lines: Sequence[dict], key: str = 'loss') -> tuple[list[int], list[float]]:
    """A value over the steps of training.

    Args:
        lines (Sequence[dict]): What :func:`scalars` returned.
        key (str): Name of the value. Defaults to 'loss'.

    Returns:
        tuple[list[int], list[float]]: Steps and values.
    """
    found = [line for line in lines if _is_training(line) and key in line]
    return [line['step'] for line in found], [line[key] for line in found]


def evaluation_curve(lines: Sequence[dict], key: str) -> tuple[list[int], list[float]]:
    """A metric over the steps of training.

    Args:
        lines (Sequence[dict]): What :func:`scalars` returned.
        key (str): Name of the metric.

    Returns:
        tuple[list[int], list[float]]: For each evaluation the last training step that was logged
        before it, because MMEngine counts epochs here in an epoch-based run, and the value.
    """
    steps, values, step = [], [], 0
    for line in lines:
        if _is_training(line):
            step = line['step']
        elif key in line:
            steps.append(step)
            values.append(line[key])
    return steps, values


def last_checkpoint(work_dir: Path) -> Path | None:
    """The checkpoint that a run wrote last.

    Args:
        work_dir (Path): Folder of the run.

    Returns:
        Path, optional: The file, also where the folder was moved since; None where it is not there.
    """
    pointer = Path(work_dir) / 'last_checkpoint'
    if not pointer.is_file():
        return None
    named = Path(pointer.read_text().strip())
    return next((file for file in (named, pointer.with_name(named.name)) if file.is_file()), None)


def dumped_config(work_dir: Path) -> 'Config':
    """The config with which a run was started, every base merged.

    Args:
        work_dir (Path): Folder of the run.

    Returns:
        Config: The newest that MMEngine dumped there.

    Raises:
        FileNotFoundError: If there is none.
    """
    from mmengine.config import Config

    work_dir = Path(work_dir)
    files = list(work_dir.glob('*.py')) or list(work_dir.glob('*/vis_data/config.py'))
    if not files:
        raise FileNotFoundError(f'{work_dir} holds no config: the run ended before it wrote one')
    return Config.fromfile(max(files, key=lambda file: file.stat().st_mtime))


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


def _is_training(line: dict) -> bool:
    return 'loss' in line
