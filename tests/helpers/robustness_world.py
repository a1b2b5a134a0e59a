"""Small data sets in the layouts of the tests of robustness."""

import json
from pathlib import Path

import numpy as np
from PIL import Image

CORRUPTIONS = {'noise': ('gaussian_noise',), 'digital': ('contrast',)}
FRAMES = 5


def write_robustness(folder: Path, images: Path) -> dict[str, Path]:
    """Write variants of labelled images.

    Args:
        folder: Gets a folder per test.
        images: Folder with ``<class>/`` images.

    Returns:
        dict[str, Path]: Folder by test: ``imagenet-a`` (negatives of all classes but the first),
        ``imagenet-c`` and ``3dcc`` (noise that grows with severity) and ``vid-robust`` (a clip per
        class that gets brighter, the anchor in the middle).
    """
    rng = np.random.default_rng(0)
    classes = sorted(path.name for path in images.iterdir())
    folders = {name: folder / name for name in ('imagenet-a', 'imagenet-c', '3dcc', 'vid-robust')}

    def write(file: Path, pixels: np.ndarray) -> None:
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(file)

    clips = {}
    for name in classes:
        for file in sorted((images / name).iterdir()):
            pixels = np.asarray(Image.open(file).convert('RGB')).astype(float)
            if name != classes[0]:
                write(folders['imagenet-a'] / name / file.name, 255 - pixels)
            for group, corruptions in CORRUPTIONS.items():
                for corruption in corruptions:
                    for severity in range(1, 6):
                        place = Path(corruption, str(severity), name, file.name)
                        noise = rng.normal(0, 30 * severity, pixels.shape)
                        write(folders['imagenet-c'] / group / place, pixels + noise)
        for severity in range(1, 6):
            fog = folders['3dcc'] / 'fog_3d' / str(severity) / name / file.name
            write(fog, pixels + (200 - pixels) * severity / 5)
        clips[name] = [f'val/{name}/{number}.png' for number in range(FRAMES)]
        for number, frame in enumerate(clips[name]):
            write(folders['vid-robust'] / frame, pixels + 25 * (number - FRAMES // 2))
    labels = {frame: [n] for n, name in enumerate(classes) for frame in clips[name]}
    middle = FRAMES // 2
    metadata = dict(
        pmsets={clip[middle]: clip[:middle] + clip[middle + 1 :] for clip in clips.values()},
        labels=labels,
        rev_class_idx_map={str(number): [number] for number in range(len(classes))},
    )
    (folders['vid-robust'] / 'metadata').mkdir()
    for name, content in metadata.items():
        (folders['vid-robust'] / 'metadata' / f'{name}.json').write_text(json.dumps(content))
    return folders
