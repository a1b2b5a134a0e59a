"""Arguments, networks and tables that the sub-commands of probe.py share."""

import argparse
import math
import os
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack
from itertools import chain, count
from pathlib import Path
from typing import Any

from _arguments import Parser, add_shared, positive

RANDOM = 'random'
FOR_REPORT = 'for the report'
NO_SETTINGS = ('name', 'run', 'checkpoints', 'out', 'labels', 'parser', 'evaluation', 'reported')
MINUTES = ('knn', 'linear', 'classify', 'segment')
"""Probes whose results of other data or settings give way; of others that would cost hours."""


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
    text = 'file, label=file to name it in tables, or "random"'
    add('checkpoints', nargs='+', metavar='CHECKPOINT', help=text)
    add_shared(parser, '--which', '--backbone')
    for option, meaning, untold in (
        ('--depth', 'layers of the ResNet', depth),
        ('--base-channels', 'channels of its stem and first stage', base_channels),
    ):
        told = f'(default: as the file, for "random" the first file, or else {untold})'
        add(option, type=positive, metavar='N', help=f'{meaning} {told}')
    add_shared(parser, '--seed')
    add_shared(parser, '--out', metavar='JSON', help='file for results and settings')
    add_shared(parser, '--evaluation')
    parser.set_defaults(run=run, parser=parser)
    return parser


def add_work_dir(parser: Parser, folder: str) -> None:
    """Add the folder of a probe that goes on where it ended."""
    add_shared(
        parser,
        '--work-dir',
        type=Path,
        default=Path('work_dirs/probe') / folder,
        help='folder for results and report; the same command goes on where it ended',
    )


def add_images(parser: Parser, folder: str) -> None:
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
    add_work_dir(parser, folder)


def add_recorded(parser: Parser, folder: str, layer: str) -> None:
    """Add the arguments of a probe of a layer."""
    add_shared(parser, '--device')
    add_work_dir(parser, folder)
    parser.add_argument(
        '--layer',
        metavar='NAME',
        help='res2 to res5, the index of a stage or block, or a submodule (default: '
        f'{layer} of a network with four stages, the last block of others)',
    )


def record(args: argparse.Namespace, label: str, checkpoint: str, said: dict[str, Any]) -> Any:
    """Open the record of a checkpoint, by its network and what else decides its results."""
    from vito_mm.probes.record import Record

    identity = network_of(args, checkpoint) | said
    return Record(args.work_dir / f'{label}.json', identity, args.name in MINUTES)


def network_of(args: argparse.Namespace, checkpoint: str) -> dict[str, Any]:
    """What tells the network of a checkpoint, as plain values."""
    from vito_mm.checkpoint import Checkpoint
    from vito_mm.probes.sources import find_source

    is_random = checkpoint == RANDOM
    names = ('depth', 'base_channels', 'seed') if is_random else ()
    said = {name: getattr(args, name) for name in ('which', *names)}
    said['backbone'] = args.backbone and find_source(args.backbone).identity
    file = first_file(args) if is_random else checkpoint  # random weights have its network
    digest = file and Checkpoint.read(file).sha256
    return dict(checkpoint=digest, random=is_random, **said)


def default_layer(network: Any, of_stages: str) -> str | int:
    """The layer that is compared: a stage of a network with four, the last block of others."""
    from vito_mm.probes.layers import stages_of

    return of_stages if len(stages_of(network.backbone)) == 4 else -1


def first_file(args: argparse.Namespace) -> str | None:
    """The first checkpoint that is a file: random weights are those of its network."""
    return next((name for name in args.checkpoints if name != RANDOM), None)


def encoder(
    args: argparse.Namespace,
    checkpoint: str,
    output_stride: int | None = None,
    classifier: bool = False,
) -> Any:
    """Open the network of a checkpoint, or its classifier."""
    from vito_mm.checkpoint import CheckpointError
    from vito_mm.probes.loading import load_encoder, resnet, resnet_of_file

    file = None if checkpoint == RANDOM else checkpoint
    first, network = first_file(args), args.backbone
    if network is None and (args.depth or args.base_channels or first is None):
        own = resnet_of_file(file or first, args.which) or resnet()
        network = resnet(args.depth or own['depth'], args.base_channels or own['base_channels'])
    like = first if network is None and file is None else None
    options = dict(keep=not like, seed=args.seed, classifier=classifier)
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


def open_each(
    args: argparse.Namespace,
    open_network: Callable[[str], Any],
    open_record: Callable[[str, str, Any], Any],
) -> tuple[dict[str, Any], Callable[[str, str], Any]]:
    """Open all networks and records, so that what is wrong is said before the first probe.

    Args:
        args: Its checkpoints are opened.
        open_network: Takes a checkpoint.
        open_record: Takes the name of a checkpoint's folder, the checkpoint and the network.

    Returns:
        tuple: Records by folder, and what gives the network of a folder and checkpoint. That of the
        first has been kept; others are opened again, as they may not fit into memory together.
    """
    records: dict[str, Any] = {}
    kept: dict[str, Any] = {}
    for label, checkpoint in zip(folder_names(args.checkpoints), args.checkpoints, strict=True):
        network = open_network(checkpoint)
        records[label] = open_record(label, checkpoint, network)
        kept = kept or {label: network}
    return records, lambda label, checkpoint: kept.pop(label, None) or open_network(checkpoint)


def probe_each(
    args: argparse.Namespace,
    probe: Callable[[str, str], tuple[Any, dict[str, Any]]],
    write_report: Callable[[Path, dict[str, Any]], Path],
) -> list[dict[str, Any]]:
    """Probe the checkpoints one after the other; reports and ``--out`` hold those that are done.

    Args:
        args: Its work dir gets the report.
        probe: Takes the name of a checkpoint's folder and the checkpoint; returns the result for
            the report, and the row of the table. A row may have an entry :data:`FOR_REPORT`,
            further arguments of :meth:`_evaluation.ProbeReport.add`.
        write_report: Takes the work dir and the results by folder, and returns the page.

    Raises:
        ProbeError: If another command probes one of the checkpoints in this work dir.
    """
    results: dict[str, Any] = {}
    rows = []
    folders = folder_names(args.checkpoints)
    with ExitStack() as held:
        for label in folders:
            held.enter_context(_lock(args, label))
        for name, label, checkpoint in zip(args.labels, folders, args.checkpoints, strict=True):
            started = time.monotonic()
            results[label], found = probe(label, checkpoint)
            print(f'report: {write_report(args.work_dir, results)}', file=sys.stderr)
            told = found.pop(FOR_REPORT, {})
            rows.append(dict(checkpoint=name, **found))
            rows[-1].setdefault('seconds', time.monotonic() - started)
            line = ', '.join(f'{key} {cell(key, value)}' for key, value in rows[-1].items())
            print(line, flush=True)
            if args.out:
                write_results(args, rows)
            if args.evaluation:
                args.reported.add(checkpoint, rows[-1], **told)
    return rows


def _lock(args: argparse.Namespace, label: str) -> AbstractContextManager[None]:
    """Keep other commands away from what the work dir has of a checkpoint."""
    from vito_mm.probes.image_folders import ProbeError
    from vito_mm.utils.file_lock import file_lock

    def busy(process: str) -> ProbeError:
        return ProbeError(
            f'another command (process {process}) probes {label} in {args.work_dir}: wait for its '
            'end, or name another --work-dir'
        )

    args.work_dir.mkdir(parents=True, exist_ok=True)
    return file_lock(args.work_dir / f'{label}.lock', busy)


def probe_trained(
    args: argparse.Namespace,
    runs: Mapping[str, Any],
    scores: Callable[[dict[str, float]], dict[str, float]],
    write_report: Callable[[Path, dict[str, Any]], Path],
    **said: Any,
) -> list[dict[str, Any]]:
    """Train by the config of each checkpoint, or go on, see :func:`probe_each`.

    Args:
        args: Its work dir gets a record per checkpoint, and the report.
        runs: Configs by the names of the checkpoints' folders.
        scores: Takes what the evaluator found, with the seconds, and returns a row.
        write_report: Takes the work dir and the rows by name, and returns the page.
        **said: What decides the results besides the configs and the networks.
    """
    from vito_mm.probes.training import deciding_settings, finish

    records = {}
    for (label, cfg), checkpoint in zip(runs.items(), args.checkpoints, strict=True):
        decides = deciding_settings(cfg) | dict(seed=args.seed) | said
        records[label] = record(args, label, checkpoint, decides)

    def probe(label: str, _: str) -> tuple[Any, dict[str, Any]]:
        found = scores(finish(runs[label], records[label]))
        return found, dict(found)

    return probe_each(args, probe, write_report)


def folder_names(checkpoints: Sequence[str]) -> list[str]:
    """Name a folder for each checkpoint: its last two parts, numbered where they meet again."""
    names: list[str] = []
    for checkpoint in checkpoints:
        name = '_'.join(Path(checkpoint).with_suffix('').parts[-2:]).strip('/.')
        numbered = (f'{name}-{number}' for number in count(2))
        names.append(next(each for each in chain([name], numbered) if each not in names))
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
    from vito_mm.probes.training import shown

    return shown(key, value)


def write_results(args: argparse.Namespace, rows: Sequence[dict[str, Any]]) -> None:
    """Write results and settings, all of it or nothing."""
    import torch

    from vito_mm.utils.atomic import write_json

    settings = {k: v for k, v in vars(args).items() if k not in NO_SETTINGS}
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else 'CPU'
    # JSON knows no NaN.
    rows = [
        {k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in row.items()}
        for row in rows
    ]
    content = dict(probe=args.name, device=device, settings=settings, results=rows)
    args.out.parent.mkdir(parents=True, exist_ok=True)
    write_json(args.out, content, indent=2, allow_nan=False, default=os.fspath)
