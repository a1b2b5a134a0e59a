#!/usr/bin/env python
"""Scores of the frozen features of checkpoints, in minutes: one table for all of them.

CHECKPOINT is a file with a network, or "random" for random weights, the baseline.
"""

import argparse
import math
import os
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

from _arguments import NETWORKS, add_options, cores, natural, positive

RANDOM = 'random'
FORMATS = {'L2': 'g', 'seconds': '.0f'}
"""How the table shows a column; accuracies have one decimal."""


def main() -> None:
    """Parse the command line, probe each checkpoint, and print the table."""
    args = parse_arguments()
    from vito_mm.checkpoint import Checkpoint, CheckpointError
    from vito_mm.probes.image_folders import ProbeError

    try:
        # What the libraries print goes where it does not mix with the table.
        with redirect_stdout(sys.stderr):
            # Held, so that each probe and its check find the file read.
            _held = [Checkpoint.read(name) for name in args.checkpoints if name != RANDOM]
            rows = probe_segment(args) if args.name == 'segment' else probe_images(args)
    except (CheckpointError, ProbeError, ValueError, ImportError) as error:
        raise SystemExit(f'tools/probe.py {args.name}: {error}') from None
    print(table(rows))


def parse_arguments() -> argparse.Namespace:
    """Read the command line."""
    common = argparse.ArgumentParser(add_help=False)
    add = common.add_argument
    add('checkpoints', nargs='+', metavar='CHECKPOINT', help='file, or "random"')
    add('--which', choices=NETWORKS, default='online', help='network of the file (%(default)s)')
    add(
        '--backbone',
        metavar='NAME',
        help='network of the weights: timm:NAME, torchvision:NAME or a config of mmpretrain, '
        'FILE.py (default: as the file tells, or the ResNet of --depth)',
    )
    add('--depth', type=positive, help="depth of the ResNet (default: the file's or config's; 50)")
    add('--seed', type=int, default=0, help='seed of all that is random (%(default)s)')
    add('--out', type=Path, help='JSON file for the results')

    images = argparse.ArgumentParser(add_help=False, parents=[common])
    add = images.add_argument
    add(
        '--data',
        type=Path,
        required=True,
        help='folder with train/CLASS/ and val/CLASS/ images, or a manifest with labels',
    )
    add(
        '--base-channels',
        type=positive,
        help="width of stem and first stage (default: the file's; 64); the demo has 32",
    )
    add('--image-size', type=positive, default=224, help='side in pixels (%(default)s)')
    add('--batch-size', type=positive, default=128, help='images at a time (%(default)s)')
    add('--workers', type=natural, default=cores(), help='processes that read (%(default)s)')

    parser = argparse.ArgumentParser(description=__doc__)
    probes = parser.add_subparsers(dest='name', required=True)
    knn = probes.add_parser('knn', parents=[images], help='nearest neighbours: no training')
    knn.add_argument('--k', type=positive, default=20, help='number of neighbours (%(default)s)')
    probes.add_parser('linear', parents=[images], help='linear classification')
    probes.add_parser(
        'classify', parents=[images], help='by the classifier in the file: no training'
    )

    segment = probes.add_parser(
        'segment', parents=[common], help='linear segmentation, on the data of a config of mmseg'
    )
    add = segment.add_argument
    add('--config', required=True, help='config of mmseg')
    add(
        '--stages',
        type=int,
        nargs='+',
        default=[4],
        help='1 to 4 for layer1 to layer4, or blocks of a transformer, from 1; several are '
        'concatenated (4)',
    )
    add('--steps', type=positive, default=2000, help='training steps (%(default)s)')
    add('--lr', type=float, default=1e-2, help='learning rate at the start (%(default)s)')
    add('--batch-size', type=positive, default=16, help='images per step (%(default)s)')
    add('--workers', type=natural, help="data workers (the config's)")
    add('--work-dir', type=Path, help='folder of the runs (work_dirs/probe/CONFIG)')
    add_options(segment)
    args = parser.parse_args()
    if args.name == 'classify' and RANDOM in args.checkpoints:
        parser.error('random weights have no classifier: classify needs files')
    return args


def probe_images(args: argparse.Namespace) -> list[dict[str, Any]]:
    """Classify images by the features, or the classifier, of each checkpoint."""
    from vito_mm.probes.features import classifier_accuracy, labelled_features
    from vito_mm.probes.knn import knn_top1
    from vito_mm.probes.labelled_images import labelled_frames
    from vito_mm.probes.linear_classifier import linear_accuracy

    if args.name != 'classify':
        labelled_frames(args.data, args.image_size)
    for checkpoint in dict.fromkeys(args.checkpoints):  # fail before the first probe
        encoder(args, checkpoint)

    def probe(checkpoint: str) -> dict[str, Any]:
        sizes = args.image_size, args.batch_size, args.workers
        if args.name == 'classify':
            top1, top5 = classifier_accuracy(encoder(args, checkpoint), args.data, *sizes)
            return {'top-1': top1} | ({} if top5 is None else {'top-5': top5})
        features = labelled_features(encoder(args, checkpoint), args.data, *sizes)
        if args.name == 'knn':
            return {'top-1': knn_top1(*features, k=args.k)}
        result = linear_accuracy(*features, seed=args.seed)
        top5 = {} if result.top5 is None else {'top-5': result.top5}
        return {'top-1': result.top1, **top5, 'L2': result.strength}

    return probe_each(args, [lambda c=c: probe(c) for c in args.checkpoints])


def encoder(args: argparse.Namespace, checkpoint: str) -> Any:
    """Open the network of a checkpoint; random weights are those of the first file's network."""
    from vito_mm.checkpoint import CheckpointError
    from vito_mm.probes.loading import load_encoder, resnet

    file = None if checkpoint == RANDOM else checkpoint
    first = next((name for name in args.checkpoints if name != RANDOM), None)
    network = args.backbone
    if network is None and (args.depth or args.base_channels or first is None):
        network = resnet(args.depth or 50, args.base_channels or 64)
    like = first if network is None and file is None else None
    options = dict(keep=not like, seed=args.seed, classifier=args.name == 'classify')
    try:
        return load_encoder(like or file, args.which, network, **options)
    except CheckpointError as error:
        if args.depth is None:
            raise
        raise CheckpointError(f'{error}\nThe ResNet has {args.depth} layers: see --depth') from None


def probe_segment(args: argparse.Namespace) -> list[dict[str, Any]]:
    """Train a linear segmentation head on each checkpoint's features."""
    from vito_mm.launch import parse_options
    from vito_mm.probes import segmentation

    args.cfg_options = parse_options(args.cfg_options or ())
    base = segmentation.read_segmentation_config(args.config, args.cfg_options, args.backbone)
    work_dir = args.work_dir or Path('work_dirs/probe') / Path(args.config).stem
    names = ('stages', 'steps', 'lr', 'batch_size', 'workers', 'depth', 'which', 'seed', 'backbone')
    settings = {name: getattr(args, name) for name in names}
    files = [None if checkpoint == RANDOM else checkpoint for checkpoint in args.checkpoints]
    folders = folder_names(args.checkpoints)
    configs = [
        segmentation.probe_config(base, file, work_dir / folder, **settings)
        for file, folder in zip(files, folders, strict=True)
    ]
    for cfg in configs:
        segmentation.check_probe(cfg)
    return probe_each(args, [lambda c=c: segmentation.run_probe(c) for c in configs])


def probe_each(
    args: argparse.Namespace, probes: Sequence[Callable[[], dict[str, Any]]]
) -> list[dict[str, Any]]:
    """Run the probes one after the other; ``--out`` holds those that are done."""
    rows = []
    for checkpoint, probe in zip(args.checkpoints, probes, strict=True):
        started = time.monotonic()
        found = probe()
        rows.append(dict(checkpoint=checkpoint, **found, seconds=time.monotonic() - started))
        print(', '.join(f'{key} {cell(key, value)}' for key, value in rows[-1].items()), flush=True)
        if args.out:
            write_results(args, rows)
    return rows


def folder_names(checkpoints: Sequence[str]) -> list[str]:
    """Name a folder for each checkpoint: its last two parts, numbered where they meet again."""
    names: list[str] = []
    for checkpoint in checkpoints:
        name = '_'.join(Path(checkpoint).with_suffix('').parts[-2:]).strip('/.')
        same = sum(other == name or other.startswith(f'{name}-') for other in names)
        names.append(f'{name}-{same + 1}' if same else name)
    return names


def table(rows: Sequence[dict[str, Any]]) -> str:
    """Draw the results as a Markdown table with aligned columns."""
    header = list(dict.fromkeys(key for row in rows for key in row))
    lines = [header, *([cell(key, row.get(key)) for key in header] for row in rows)]
    widths = [max(len(line[i]) for line in lines) for i in range(len(header))]
    marks = ['-' * widths[0], *('-' * (width - 1) + ':' for width in widths[1:])]

    def text(line: list[str]) -> str:
        numbers = (value.rjust(width) for value, width in zip(line[1:], widths[1:], strict=True))
        return f'| {" | ".join([line[0].ljust(widths[0]), *numbers])} |'

    return '\n'.join(text(line) for line in (header, marks, *lines[1:]))


def cell(key: str, value: Any) -> str:
    """Format a value of the table."""
    if value is None:
        return '-'
    return format(value, FORMATS.get(key, '.1f')) if isinstance(value, float) else str(value)


def write_results(args: argparse.Namespace, rows: Sequence[dict[str, Any]]) -> None:
    """Write results and settings, all of it or nothing."""
    import torch

    from vito_mm.utils.atomic import write_json

    settings = {k: v for k, v in vars(args).items() if k not in ('name', 'checkpoints', 'out')}
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else 'CPU'
    # JSON knows no NaN.
    rows = [
        {k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in row.items()}
        for row in rows
    ]
    content = dict(probe=args.name, device=device, settings=settings, results=rows)
    args.out.parent.mkdir(parents=True, exist_ok=True)
    write_json(args.out, content, indent=2, allow_nan=False, default=os.fspath)


if __name__ == '__main__':
    main()
