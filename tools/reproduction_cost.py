#!/usr/bin/env python
"""What reproducing the paper takes, as Markdown tables, from rates that were measured.

The defaults are the rates in docs/results.md; docs/reproduce.md shows what they give. Your own rate
is the clips of a GPU's batch by the time of an iteration in the log. Pairs of figures are for the
augmentation in the data workers, and on the device.
"""

import argparse
import math
from collections.abc import Sequence

from vito_mm.utils.report import Block, Heading, Table, to_markdown

CLIPS_PER_EPOCH = 1_280_000
VIDEOS, SHARE_KEPT = 1_180_042, 0.24
"""Videos of VideoNet, and their share of those retrieved: section 3.3 of the paper."""

# Layout of a 10 s clip of 602 x 256 pixels: MB, clips/s of a core that augments, and that does not.
LAYOUTS = {
    'as the web has it, GOP 250': (0.45, 52.9, 57.7),
    'GOP 12': (0.61, 97.4, 113.4),
    'GOP 12, fast, no B-frames': (0.74, 133.4, 165.5),
    'all-intra, fast': (1.73, 231.1, 337.6),
}
# Training images, epochs and batch of the paper's protocol: configs/seg and configs/det.
TASKS = {
    'PASCAL VOC 2012 aug': (10_582, 45, 16),
    'ADE20K': (20_210, 60, 16),
    'COCO 2017': (118_287, 30, 128),
    'LVIS v1': (100_170, 30, 128),
}


def parse_args(words: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    add = parser.add_argument
    add('--epochs', type=int, default=300, help='of 1.28 M clips, default: %(default)s')
    add('--batch', type=int, default=4096, help='clips of a step, default: %(default)s')
    add(
        '--clips-per-second',
        type=float,
        nargs=2,
        default=(595, 726),
        metavar=('CPU', 'DEVICE'),
        help='of a GPU, augmentation in the data workers and on the device, default: 595 726',
    )
    add('--gpus', type=int, nargs='+', default=[1, 8, 16, 32], help='default: 1 8 16 32')
    add('--probe', type=float, default=53.9, help='videos/s, default: %(default)s')
    add('--classify', type=float, default=0.13, help='videos/s on CPUs, default: %(default)s')
    add(
        '--classified-images',
        type=float,
        default=2000,
        help='images/s that a GPU is assumed to classify, default: %(default)s',
    )
    add('--seeds', type=int, default=5, help='of each fine-tuning, default: %(default)s')
    add('--settings', type=int, default=3, help='points of the sweep, default: %(default)s')
    return parser.parse_args(words)


def rounded(value: float) -> str:
    """A number to two significant digits at least, with thousands apart."""
    digits = max(0, 1 - math.floor(math.log10(value))) if value < 10 else 0
    return f'{value:,.{digits}f}'


def pair(values: Sequence[str]) -> str:
    """Figures for the augmentation in the data workers, and on the device."""
    return ' / '.join(values)


def pretraining(args: argparse.Namespace) -> Table:
    """Days and GPU-hours of the whole schedule, if rates add up over GPUs."""
    clips = args.epochs * CLIPS_PER_EPOCH
    hours = [clips / rate / 3600 for rate in args.clips_per_second]
    rows = [
        (
            str(gpus),
            pair([f'{rate * gpus:,.0f}' for rate in args.clips_per_second]),
            pair([rounded(hour / gpus / 24) for hour in hours]),
            pair([f'{hour:,.0f}' for hour in hours]),
        )
        for gpus in args.gpus
    ]
    return Table(('GPUs', 'clips/s', 'days', 'GPU-hours'), rows, text=())


def videos(args: argparse.Namespace) -> Table:
    """Storage of the data set, and cores that feed one GPU."""
    rows = [
        (
            layout,
            f'{megabytes:.2f}',
            rounded(megabytes * VIDEOS / 1e6),
            rounded(megabytes * VIDEOS / SHARE_KEPT / 1e6),
            pair([rounded(a / b) for a, b in zip(args.clips_per_second, rates, strict=True)]),
        )
        for layout, (megabytes, *rates) in LAYOUTS.items()
    ]
    kept, retrieved = VIDEOS / 1e6, VIDEOS / SHARE_KEPT / 1e6
    header = (
        'layout',
        'MB a video',
        f'TB of {kept:.2f} M videos',
        f'TB of all {retrieved:.1f} M retrieved',
        'cores a GPU',
    )
    return Table(header, rows)


def curation(args: argparse.Namespace) -> Table:
    """Hours of the stages that take any."""
    retrieved = VIDEOS / SHARE_KEPT
    stages = {
        'probe, 2 CPU cores': retrieved / args.probe,
        'classify, 2 CPU cores': retrieved / args.classify,
        f'classify, a GPU of {args.classified_images:,.0f} images/s (assumed)': (
            retrieved * 100 / args.classified_images
        ),
    }
    rows = [
        (stage, rounded(seconds / 3600), rounded(seconds / 86400))
        for stage, seconds in stages.items()
    ]
    return Table((f'stage, {retrieved / 1e6:.1f} M videos', 'hours', 'days'), rows)


def fine_tuning(args: argparse.Namespace) -> Table:
    """Steps and images of a run and of the sweep with all seeds."""
    runs = args.seeds * args.settings
    rows = [
        (
            task,
            f'{images:,}',
            str(epochs),
            str(batch),
            f'{round(epochs * images / batch):,}',
            f'{epochs * images / 1e6:.2f}',
            f'{runs * epochs * images / 1e6:.1f}',
        )
        for task, (images, epochs, batch) in TASKS.items()
    ]
    all_runs = f'M images, {args.settings} settings x {args.seeds} seeds'
    header = ('task', 'training images', 'epochs', 'batch', 'steps', 'M images a run', all_runs)
    return Table(header, rows)


def main(words: Sequence[str] | None = None) -> None:
    """Print the tables."""
    args = parse_args(words)
    steps = args.epochs * CLIPS_PER_EPOCH / args.batch
    blocks: list[Block] = [
        Heading(f'Pre-training: {args.epochs} epochs, {steps:,.0f} steps of {args.batch} clips', 3),
        pretraining(args),
        Heading('Videos: storage, and cores that read them', 3),
        videos(args),
        Heading('Curation', 3),
        curation(args),
        Heading('Fine-tuning one checkpoint', 3),
        fine_tuning(args),
    ]
    print(to_markdown(blocks), end='')


if __name__ == '__main__':
    main()
