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

from _arguments import Parser, add_shared, cores, natural, positive

RANDOM = 'random'
PROPAGATIONS = ('vfs', 'crw', 'dino')  # of vito_mm.probes.label_propagation
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
            rows = args.run(args)
    except (CheckpointError, ProbeError, ValueError, ImportError) as error:
        raise SystemExit(f'tools/probe.py {args.name}: {error}') from None
    print(table(rows))


def parse_arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = Parser(description=__doc__)
    probes = parser.add_subparsers(dest='name', required=True, metavar='PROBE')
    for add in (add_knn, add_linear, add_classify, add_segment, add_davis, add_incontext):
        add(probes)
    args = parser.parse_args()
    if args.name == 'classify' and RANDOM in args.checkpoints:
        parser.error('random weights have no classifier: classify needs files')
    return args


def add_probe(
    probes: Any,
    name: str,
    run: Callable[[argparse.Namespace], list[dict[str, Any]]],
    text: str,
    depth: str = '50',
    base_channels: str = '64',
) -> Parser:
    """Add a probe with the arguments that all have.

    Args:
        probes: Sub-commands.
        name: Name of the sub-command.
        run: Takes the arguments and returns the rows of the table.
        text: What it does.
        depth: Depth of the ResNet where no file tells it.
        base_channels: Its width, likewise.
    """
    parser = probes.add_parser(name, help=text, description=f'{text[0].upper()}{text[1:]}.')
    add = parser.add_argument
    add('checkpoints', nargs='+', metavar='CHECKPOINT', help='file, or "random"')
    add_shared(parser, '--which', '--backbone')
    for option, meaning, untold in (
        ('--depth', 'layers of the ResNet', depth),
        ('--base-channels', 'channels of its stem and first stage', base_channels),
    ):
        told = f'(default: as the file, for "random" the first file, or else {untold})'
        add(option, type=positive, metavar='N', help=f'{meaning} {told}')
    add_shared(parser, '--seed')
    add_shared(parser, '--out', metavar='JSON', help='file for results and settings')
    parser.set_defaults(run=run)
    return parser


def add_images(parser: Parser) -> None:
    """Add the arguments of a probe that reads labelled images."""
    add_shared(
        parser,
        '--data',
        type=Path,
        required=True,
        help='folder with train/CLASS/ and val/CLASS/ images, or a manifest with labels',
    )
    add_shared(parser, '--size', old=['--image-size'])
    add_shared(parser, '--batch-size', default=128)
    add_shared(
        parser, '--workers', help='processes that read, 0: this one (default: the cores, at most 8)'
    )
    add_shared(parser, '--device')


def add_knn(probes: Any) -> None:
    """Add the probe by nearest neighbours."""
    parser = add_probe(probes, 'knn', probe_images, 'classify by nearest neighbours: no training')
    add_images(parser)
    parser.add_argument('--k', type=positive, default=20, metavar='N', help='number of neighbours')


def add_linear(probes: Any) -> None:
    """Add the linear classifier."""
    add_images(add_probe(probes, 'linear', probe_images, 'classify linearly'))


def add_classify(probes: Any) -> None:
    """Add the classifier of the file."""
    text = 'classify by the classifier in the file: no training'
    add_images(add_probe(probes, 'classify', probe_images, text))


def add_segment(probes: Any) -> None:
    """Add linear segmentation."""
    text = 'segment linearly, on the data of a config of mmseg'
    parser = add_probe(probes, 'segment', probe_segment, text, *["the config's"] * 2)
    add = parser.add_argument
    add('--config', required=True, metavar='CONFIG', help='config of mmseg')
    add(
        '--stages',
        type=int,
        nargs='+',
        default=[4],
        metavar='N',
        help='1 to 4 for layer1 to layer4, or blocks of a transformer, from 1; several are '
        'concatenated',
    )
    add('--steps', type=positive, default=2000, metavar='N', help='training steps')
    add('--lr', type=float, default=1e-2, metavar='RATE', help='learning rate at the start')
    add_shared(parser, '--batch-size', default=16, help='images per step')
    add_shared(parser, '--workers', help="processes that read, 0: this one (default: the config's)")
    add_shared(
        parser,
        '--work-dir',
        type=Path,
        help='folder of the runs (default: work_dirs/probe/CONFIG)',
    )
    add_shared(parser, '--cfg-options')


def add_recorded(parser: Parser, folder: str, layer: str) -> None:
    """Add the arguments of a probe that goes on where it ended."""
    add_shared(parser, '--device')
    add_shared(
        parser,
        '--work-dir',
        type=Path,
        default=Path('work_dirs/probe') / folder,
        help='folder for results and report; the same command goes on where it ended',
    )
    parser.add_argument(
        '--layer',
        metavar='NAME',
        help='res2 to res5, the index of a stage or block, or a submodule (default: '
        f'{layer} of a network with four stages, the last block of others)',
    )


def add_davis(probes: Any) -> None:
    """Add video object segmentation."""
    text = 'propagate the masks of the first frames of videos (DAVIS 2017): no training'
    parser = add_probe(probes, 'davis', probe_davis, text)
    add_recorded(parser, 'davis', 'res4')
    add_shared(
        parser,
        '--data',
        type=Path,
        required=True,
        help='folder of DAVIS 2017: JPEGImages/480p, Annotations/480p, ImageSets/2017',
    )
    add = parser.add_argument
    add('--split', default='val', metavar='NAME', help='list in ImageSets/2017')
    add(
        '--protocol', choices=PROPAGATIONS, default='vfs', help="whose settings; vfs is the paper's"
    )
    add('--radius', type=positive, metavar='CELLS', help="reach (default: the protocol's)")
    add_shared(
        parser, '--size', default=None, help="short side of the frames (default: the protocol's)"
    )


def add_incontext(probes: Any) -> None:
    """Add in-context segmentation."""
    text = 'segment by the most similar training patches, on the data of a config of mmseg'
    parser = add_probe(probes, 'incontext', probe_incontext, text)
    add_recorded(parser, 'incontext', 'last')
    add = parser.add_argument
    add('--config', required=True, metavar='CONFIG', help='config of mmseg')
    add('--memory', type=positive, default=10_240_000, metavar='N', help='training patches at most')
    add('--neighbours', type=positive, default=30, metavar='N', help='of each patch')
    add('--epochs', type=natural, default=1, metavar='N', help='augmented passes, 0: one without')
    add('--seeds', type=positive, default=1, metavar='N', help='repetitions, with seeds 0, 1, ...')
    add_shared(parser, '--size', default=512)
    add_shared(parser, '--batch-size', default=16)
    add_shared(parser, '--workers')
    add_shared(parser, '--cfg-options')


def probe_davis(args: argparse.Namespace) -> list[dict[str, Any]]:
    """Propagate masks by the features of each checkpoint."""
    from dataclasses import asdict, replace

    from vito_mm.probes import davis
    from vito_mm.probes.label_propagation import PROPAGATIONS as SETTINGS

    chosen = dict(short_side=args.size, radius=args.radius)
    changes = {name: value for name, value in chosen.items() if value is not None}
    settings = replace(SETTINGS[args.protocol], **changes)
    sequences = davis.find_sequences(args.data, args.split)
    labels = folder_names(args.checkpoints)
    records = {}
    for label, checkpoint in zip(labels, args.checkpoints, strict=True):  # fail before the first
        network = encoder(args, checkpoint, settings.output_stride)
        layer = args.layer or default_layer(network, 'res4')
        data = [sequence.name for sequence in sequences]
        said = dict(settings=asdict(settings), layer=layer, data=data)
        records[label] = record(args, label, checkpoint, said)
    masks = {label: args.work_dir / 'masks' / label for label in labels}
    results = {}

    def probe(label: str, checkpoint: str) -> dict[str, Any]:
        network = encoder(args, checkpoint, settings.output_stride)
        layer = records[label].identity['layer']
        results[label] = davis.evaluate(
            network, sequences, records[label], layer, settings, masks[label]
        )
        page = davis.write_report(
            args.work_dir, results, sequences, args.protocol, {k: masks[k] for k in results}
        )
        print(f'report: {page}', file=sys.stderr)
        frames = [found['seconds'] for found in results[label].values()]
        return davis.summary(results[label]) | {'s per frame': sum(frames) / len(frames)}

    pairs = zip(labels, args.checkpoints, strict=True)
    return probe_each(args, [lambda p=pair: probe(*p) for pair in pairs])


def probe_incontext(args: argparse.Namespace) -> list[dict[str, Any]]:
    """Segment by the nearest training patches of each checkpoint's features."""
    from dataclasses import asdict, replace
    from statistics import mean, stdev

    from vito_mm.launch import parse_options
    from vito_mm.probes.incontext import InContext, in_context_iou
    from vito_mm.probes.segmentation import read_segmentation_data

    cfg = read_segmentation_data(args.config, parse_options(args.cfg_options or ()))
    parts = [cfg[f'{part}_dataloader'].dataset for part in ('train', 'val')]
    labels = folder_names(args.checkpoints)
    records = {}
    base = InContext(args.size, args.neighbours, memory=args.memory, epochs=args.epochs)
    for label, checkpoint in zip(labels, args.checkpoints, strict=True):
        layer = args.layer or default_layer(encoder(args, checkpoint), 'last')
        said = dict(settings=asdict(base), layer=layer, data=[part.to_dict() for part in parts])
        records[label] = record(args, label, checkpoint, said)

    def probe(label: str, checkpoint: str) -> dict[str, Any]:
        network, kept = encoder(args, checkpoint), records[label]
        workers = cores() if args.workers is None else args.workers
        for seed in range(args.seeds):
            if (name := f'seed {seed}') not in kept.parts:
                settings = replace(base, seed=seed)
                place = kept.identity['layer'], args.batch_size, workers
                kept.put(name, in_context_iou(network, *parts, settings, *place))
        scores = [kept.parts[f'seed {seed}']['mIoU'] for seed in range(args.seeds)]
        spread = {'deviation': stdev(scores)} if len(scores) > 1 else {}
        return {'mIoU': mean(scores)} | spread

    pairs = zip(labels, args.checkpoints, strict=True)
    return probe_each(args, [lambda p=pair: probe(*p) for pair in pairs])


def record(args: argparse.Namespace, label: str, checkpoint: str, said: dict[str, Any]) -> Any:
    """Open the record of a checkpoint, by what decides its results."""
    from vito_mm.checkpoint import Checkpoint
    from vito_mm.probes.record import Record

    # Random weights are those of the first file's network.
    file = first_file(args) if checkpoint == RANDOM else checkpoint
    digest = [checkpoint == RANDOM, file and Checkpoint.read(file).sha256]
    names = ('which', 'backbone', 'depth', 'base_channels', 'seed')
    network = {name: getattr(args, name) for name in names}
    return Record(args.work_dir / f'{label}.json', dict(checkpoint=digest, network=network) | said)


def default_layer(network: Any, of_stages: str) -> str | int:
    """The layer that is compared: a stage of a network with four, the last block of others."""
    from vito_mm.probes.encoder import stages_of

    return of_stages if len(stages_of(network.backbone)) == 4 else -1


def probe_images(args: argparse.Namespace) -> list[dict[str, Any]]:
    """Classify images by the features, or the classifier, of each checkpoint."""
    from vito_mm.probes.features import classifier_accuracy, labelled_features
    from vito_mm.probes.knn import knn_top1
    from vito_mm.probes.labelled_images import labelled_frames
    from vito_mm.probes.linear_classifier import linear_accuracy

    if args.name != 'classify':
        labelled_frames(args.data, args.size)
    for checkpoint in dict.fromkeys(args.checkpoints):  # fail before the first probe
        encoder(args, checkpoint)

    def probe(checkpoint: str) -> dict[str, Any]:
        workers = cores() if args.workers is None else args.workers
        sizes = args.size, args.batch_size, workers
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


def first_file(args: argparse.Namespace) -> str | None:
    """The first checkpoint that is a file: random weights are those of its network."""
    return next((name for name in args.checkpoints if name != RANDOM), None)


def encoder(args: argparse.Namespace, checkpoint: str, output_stride: int | None = None) -> Any:
    """Open the network of a checkpoint."""
    from vito_mm.checkpoint import CheckpointError
    from vito_mm.probes.loading import load_encoder, resnet, resnet_of_file

    file = None if checkpoint == RANDOM else checkpoint
    first, network = first_file(args), args.backbone
    if network is None and (args.depth or args.base_channels or first is None):
        own = resnet_of_file(file or first, args.which) or resnet()
        network = resnet(args.depth or own['depth'], args.base_channels or own['base_channels'])
    like = first if network is None and file is None else None
    options = dict(keep=not like, seed=args.seed, classifier=args.name == 'classify')
    options['output_stride'] = output_stride
    try:
        return load_encoder(like or file, args.which, network, device=args.device, **options)
    except CheckpointError as error:
        if args.depth is None and args.base_channels is None:
            raise
        size = f'{network["depth"]} layers: see --depth. It has {network["base_channels"]}'
        raise CheckpointError(
            f'{error}\nThe ResNet has {size} channels: see --base-channels'
        ) from None


def probe_segment(args: argparse.Namespace) -> list[dict[str, Any]]:
    """Train a linear segmentation head on each checkpoint's features."""
    from vito_mm.launch import parse_options
    from vito_mm.probes import segmentation

    args.cfg_options = parse_options(args.cfg_options or ())
    base = segmentation.read_segmentation_config(args.config, args.cfg_options, args.backbone)
    work_dir = args.work_dir or Path('work_dirs/probe') / Path(args.config).stem
    names = ('stages', 'steps', 'lr', 'batch_size', 'workers', 'which', 'seed', 'backbone')
    settings = {name: getattr(args, name) for name in (*names, 'depth', 'base_channels')}
    settings['like'] = first_file(args)
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

    settings = {
        k: v for k, v in vars(args).items() if k not in ('name', 'run', 'checkpoints', 'out')
    }
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
