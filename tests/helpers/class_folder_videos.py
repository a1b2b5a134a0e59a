"""MiniScenes videos in class folders, with lists in UCF101's layout."""

from dataclasses import replace
from pathlib import Path

from vito_mm.miniscenes.presets import get_preset
from vito_mm.miniscenes.videos import write_video

CLASSES = ('Hammering', 'HammerThrow')
"""In UCF101's order, which is not that of the names."""


def write_class_folders(folder: Path, seconds: float = 3.0, side: int | None = None) -> Path:
    """Write four videos to train on and two to test with, of two classes.

    Args:
        folder: Gets ``UCF-101/<class>/<video>`` and ``ucfTrainTestlist``.
        seconds: Length of a video. Defaults to 3.
        side: Its side in pixels. Defaults to that of the preset 'tiny'.

    Returns:
        Path: The folder of the lists.
    """
    preset = replace(get_preset('tiny'), seconds=seconds)
    preset = preset if side is None else replace(preset, video_side=side)
    lists = folder / 'ucfTrainTestlist'
    lists.mkdir(parents=True)
    lines = {'train': [], 'test': []}
    for index in range(6):
        label = index % 2
        name = f'{CLASSES[label]}/video {index}.mp4'
        file = folder / 'UCF-101' / name
        file.parent.mkdir(parents=True, exist_ok=True)
        write_video(file, preset, 0, label + 8 * (index // 2))
        if index < 4:
            lines['train'].append(f'{name} {label + 1}')
        else:
            lines['test'].append(name)
    for part, videos in lines.items():
        (lists / f'{part}list01.txt').write_text('\n'.join(videos) + '\n')
    numbered = (f'{number} {name}\n' for number, name in enumerate(CLASSES, 1))
    (lists / 'classInd.txt').write_text(''.join(numbered))
    return lists
