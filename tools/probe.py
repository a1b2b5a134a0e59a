#!/usr/bin/env python
"""What the frozen features of checkpoints are worth, in minutes: one table for all of them.

CHECKPOINT is a file with a ResNet, or "random" for random weights, the baseline.
"""

import argparse
import json
import math
import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from typing import Any

from _arguments import NETWORKS, add_options, cores, natural, positive

RANDOM = 'random'  # vito_mm.transfer.tasks.RANDOM
FORMATS = {'L2': 'g', 'seconds': '.0f'}
"""How the table shows a column; accuracies have one decimal."""


def main() -> None:
    """Parse the command line, probe each checkpoint, and print the table."""
    args = parse_arguments()

    from vito_mm.checkpoint import CheckpointError
    from vito_mm.probes.frozen_features import ProbeError

    try:
        # What the libraries print goes where it does not mix with the table.
        with redirect_stdout(sys.stderr):
            rows = args.probe(args)
    except (CheckpointError, ProbeError) as error:
        raise SystemExit(f'tools/probe.py {args.name}: {error}') from None
    print(table(rows))


def parse_arguments() -> argparse.Namespace:
    """Read the command line."""
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument('checkpoints', nargs='+', metavar='CHECKPOINT', help='file, or "random"')
    common.add_argument(
        '--which', choices=NETWORKS, default='online', help='network of the file (%(default)s)'
    )
    common.add_argument(
        '--seed', type=int, default=0, help='seed of all that is random (%(default)s)'
    )
    common.add_argument('--out', type=Path, help='JSON file for the results')

    images = argparse.ArgumentParser(add_help=False, parents=[common])
    images.add_argument(
        '--data', type=Path, required=True, help='folder with train/CLASS/ and val/CLASS/ images'
    )
    images.add_argument(
        '--depth', type=positive, default=50, help='depth of the ResNet (%(default)s)'
    )
    images.add_argument(
        '--base-channels',
        type=positive,
        default=64,
        help='width of stem and first stage (%(default)s); the demo has 32',
    )
    images.add_argument(
        '--image-size', type=positive, default=224, help='side in pixels (%(default)s)'
    )
    images.add_argument(
        '--batch-size', type=positive, default=128, help='images at a time (%(default)s)'
    )
    images.add_argument(
        '--workers', type=natural, default=cores(), help='processes that read (%(default)s)'
    )

    parser = argparse.ArgumentParser(description=__doc__)
    probes = parser.add_subparsers(dest='name', required=True)
    knn = probes.add_parser('knn', parents=[images], help='nearest neighbours: no training')
    knn.add_argument('--k', type=positive, default=20, help='number of neighbours (%(default)s)')
    knn.set_defaults(probe=probe_knn)
    linear = probes.add_parser('linear', parents=[images], help='linear classification')
    linear.set_defaults(probe=probe_linear)

    segment = probes.add_parser(
        'segment', parents=[common], help='linear segmentation, on the data of a config of mmseg'
    )
    segment.add_argument('--config', required=True, help='config of mmseg with a ResNet')
    segment.add_argument(
        '--stages',
        type=int,
        nargs='+',
        default=[4],
        help='1 to 4 for layer1 to layer4; several are concatenated (4)',
    )
    segment.add_argument(
        '--steps', type=positive, default=2000, help='training steps (%(default)s)'
    )
    segment.add_argument(
        '--lr', type=float, default=1e-2, help='learning rate at the start (%(default)s)'
    )
    segment.add_argument(
        '--batch-size', type=positive, default=16, help='images a step (%(default)s)'
    )
    segment.add_argument('--depth', type=positive, help="depth of the ResNet (the config's)")
    segment.add_argument('--workers', type=natural, help="data workers (the config's)")
    segment.add_argument(
        '--work-dir', type=Path, help='folder of the runs (work_dirs/probe/CONFIG)'
    )
    add_options(segment)
    segment.set_defaults(probe=probe_segment)
    return parser.parse_args()


def probe_knn(args: argparse.Namespace) -> list[dict[str, Any]]:
    """Nearest-neighbour accuracy of each checkpoint."""
    from vito_mm.probes.knn import checkpoint_knn

    def probe(checkpoint: str | None) -> dict[str, Any]:
        return {'top-1': checkpoint_knn(checkpoint, k=args.k, **image_settings(args))}

    check_images(args)
    return probe_each(args, [lambda c=c: probe(file_of(c)) for c in args.checkpoints])


def probe_linear(args: argparse.Namespace) -> list[dict[str, Any]]:
    """Accuracy of a linear classifier on each checkpoint's features."""
    from vito_mm.probes.linear_classifier import checkpoint_linear

    def probe(checkpoint: str | None) -> dict[str, Any]:
        result = checkpoint_linear(checkpoint, **image_settings(args))
        top5 = {} if result.top5 is None else {'top-5': result.top5}
        return {'top-1': result.top1, **top5, 'L2': result.strength}

    check_images(args)
    return probe_each(args, [lambda c=c: probe(file_of(c)) for c in args.checkpoints])


def probe_segment(args: argparse.Namespace) -> list[dict[str, Any]]:
    """Metrics of a linear segmentation head on each checkpoint's features."""
    from vito_mm.launch import parse_options
    from vito_mm.probes.segmentation import (
        check_probe,
        probe_config,
        read_segmentation_config,
        run_probe,
    )

    base = read_segmentation_config(args.config, parse_options(args.cfg_options or ()))
    work_dir = args.work_dir or Path('work_dirs/probe') / Path(args.config).stem
    names = ('stages', 'steps', 'lr', 'batch_size', 'workers', 'depth', 'which', 'seed')
    settings = {name: getattr(args, name) for name in names}
    folders = folder_names(args.checkpoints)
    configs = [
        probe_config(base, file_of(checkpoint), work_dir / folder, **settings)
        for checkpoint, folder in zip(args.checkpoints, folders, strict=True)
    ]
    for cfg in configs:
        with depth_told(cfg.model.backbone.depth):
            check_probe(cfg)
    return probe_each(args, [lambda cfg=cfg: run_probe(cfg).metrics for cfg in configs])


def probe_each(
    args: argparse.Namespace, probes: Sequence[Callable[[], dict[str, Any]]]
) -> list[dict[str, Any]]:
    """Run the probes one after the other; what is done is in ``--out`` whatever comes then."""
    rows = []
    for checkpoint, probe in zip(args.checkpoints, probes, strict=True):
        started = time.monotonic()
        found = probe()
        rows.append(dict(checkpoint=checkpoint, **found, seconds=time.monotonic() - started))
        print(', '.join(f'{key} {cell(key, value)}' for key, value in rows[-1].items()), flush=True)
        if args.out:
            write_json(args, rows)
    return rows


def check_images(args: argparse.Namespace) -> None:
    """Fail before the first probe and not after it."""
    from vito_mm.probes.frozen_features import frozen_resnet, train_and_val

    train_and_val(args.data)
    for checkpoint in args.checkpoints:
        if checkpoint != RANDOM:
            with depth_told(args.depth):
                frozen_resnet(checkpoint, args.depth, args.which, base_channels=args.base_channels)


@contextmanager
def depth_told(depth: int) -> Iterator[None]:
    """Add the likeliest reason to the message of a checkpoint that does not fit."""
    from vito_mm.checkpoint import CheckpointError

    try:
        yield
    except CheckpointError as error:
        raise CheckpointError(f'{error}\nThe ResNet has {depth} layers: see --depth') from None


def image_settings(args: argparse.Namespace) -> dict[str, Any]:
    """Arguments that the probes of images share."""
    names = ('depth', 'base_channels', 'image_size', 'seed', 'which', 'batch_size', 'workers')
    return dict(folder=args.data, **{name: getattr(args, name) for name in names})


def file_of(checkpoint: str) -> str | None:
    """The file that the word stands for, None for random weights."""
    return None if checkpoint == RANDOM else checkpoint


def folder_names(checkpoints: Sequence[str]) -> list[str]:
    """A folder name for each checkpoint: its last two parts, numbered where they meet again."""
    names: list[str] = []
    for checkpoint in checkpoints:
        name = '_'.join(Path(checkpoint).with_suffix('').parts[-2:]).strip('/.')
        same = sum(other == name or other.startswith(f'{name}-') for other in names)
        names.append(f'{name}-{same + 1}' if same else name)
    return names


def table(rows: Sequence[dict[str, Any]]) -> str:
    """The results as a Markdown table with aligned columns."""
    header = list(dict.fromkeys(key for row in rows for key in row))
    lines = [header, *([cell(key, row.get(key)) for key in header] for row in rows)]
    widths = [max(len(line[i]) for line in lines) for i in range(len(header))]
    marks = ['-' * widths[0], *('-' * (width - 1) + ':' for width in widths[1:])]

    def text(line: list[str]) -> str:
        numbers = (value.rjust(width) for value, width in zip(line[1:], widths[1:], strict=True))
        return f'| {" | ".join([line[0].ljust(widths[0]), *numbers])} |'

    return '\n'.join(text(line) for line in (header, marks, *lines[1:]))


def cell(key: str, value: Any) -> str:
    """A value as the table shows it."""
    if value is None:
        return '-'
    if not isinstance(value, float):
        return str(value)
    return format(value, FORMATS.get(key, '.1f'))


def write_json(args: argparse.Namespace, rows: Sequence[dict[str, Any]]) -> None:
    """Write results and settings, all of it or nothing."""
    import torch

    from vito_mm.utils.atomic import written_aside

    settings = {k: v for k, v in vars(args).items() if k not in ('probe', 'checkpoints', 'out')}
    settings = {k: os.fspath(v) if isinstance(v, Path) else v for k, v in settings.items()}
    rows = [{k: None if is_nan(v) else v for k, v in row.items()} for row in rows]
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else 'CPU'
    content = dict(probe=settings.pop('name'), device=device, settings=settings, results=rows)
    args.out.parent.mkdir(parents=True, exist_ok=True)
    with written_aside(args.out) as file:
        file.write_text(json.dumps(content, indent=2, allow_nan=False) + '\n')


def is_nan(value: Any) -> bool:
    """Whether a value is a number that JSON does not know."""
    return isinstance(value, float) and not math.isfinite(value)


if __name__ == '__main__':
    main()
