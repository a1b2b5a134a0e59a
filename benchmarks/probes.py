#!/usr/bin/env python
"""Seconds that the evaluations of an encoder take per image, frame and patch, on this machine.

    python benchmarks/probes.py [--backbone torchvision:resnet50] [--device cuda]

Sizes are those of the protocols and weights are random, which costs the same. Medians of repeats;
docs/evaluate.md has the formulas by which they add up to a data set.
"""

import argparse
import platform
import statistics
import time
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import torch
import torch.nn.functional as F

from vito_mm.probes.incontext import InContext, Memory, segment
from vito_mm.probes.label_propagation import PROPAGATIONS, propagate
from vito_mm.probes.linear_classifier import fit_linear_classifier
from vito_mm.probes.loading import load_encoder, resnet

CLASSES = 21  # of PASCAL VOC


def seconds(run: Callable[[], object], repeats: int, device: str) -> float:
    """Time a function: the median of ``repeats`` calls after a first one."""
    run()
    times = []
    for _ in range(repeats):
        started = time.perf_counter()
        run()
        if device != 'cpu':
            torch.cuda.synchronize()
        times.append(time.perf_counter() - started)
    return statistics.median(times)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    add = parser.add_argument
    add('--backbone', help='as of tools/probe.py (default: ResNet-50)')
    add('--device', default='cuda' if torch.cuda.is_available() else 'cpu')
    add('--repeats', type=int, default=3)
    add('--height', type=int, default=480, help='of the frames of DAVIS')
    args = parser.parse_args()
    torch.manual_seed(0)
    noise = np.random.default_rng(0)

    def pictures(count: int, height: int, width: int) -> np.ndarray:
        return noise.integers(0, 256, (count, height, width, 3), dtype=np.uint8)

    def timed(run: Callable[[], object]) -> float:
        return seconds(run, args.repeats, args.device)

    network = args.backbone or resnet()
    encoder = load_encoder(None, network=network, device=args.device)
    rows = []

    batch = pictures(32, 224, 224)
    rows.append(('features of an image, 224 px', timed(lambda: encoder(batch)) / len(batch)))

    squares = pictures(4, 512, 512)
    maps = encoder(squares, 'last')
    one = timed(lambda: encoder(squares, 'last')) / len(squares)
    rows.append(('features of an image, 512 px', one))

    patches = F.normalize(maps.flatten(2).transpose(1, 2).flatten(0, 1), dim=1)
    count = 50_000
    memory = Memory(
        torch.randn(count, patches.shape[1], device=args.device).half(),
        torch.rand(count, CLASSES, device=args.device).half(),
    )
    settings = InContext()
    search = timed(lambda: segment(patches, memory, settings.neighbours, settings.temperature))
    per_image = search / len(squares) * 1_000_000 / count
    rows.append(
        (f'{len(patches) // len(squares)} patches of it among a million of memory', per_image)
    )

    height, width = args.height, round(args.height * 16 / 9 / 8) * 8
    settings = replace(PROPAGATIONS['vfs'], short_side=height)
    stage4 = load_encoder(
        None, network=network, output_stride=settings.output_stride, device=args.device
    )
    frame = pictures(1, height, width)
    name = f'a frame of {width} x {height} of DAVIS'
    rows.append((f'features of {name}', timed(lambda: stage4(frame, 'res4'))))
    grid = tuple(stage4(frame, 'res4').shape[2:])
    frames = settings.context + 1
    keys = [F.normalize(torch.randn(grid[0] * grid[1], 1024), dim=1) for _ in range(frames)]
    keys = [key.to(args.device) for key in keys]
    values = [torch.rand(len(key), 3, device=args.device) for key in keys]
    compared = timed(lambda: propagate(keys[0], keys, values, grid, settings))
    rows.append((f'labels of {name}, from {frames} frames', compared))

    features, classes = torch.randn(10_000, 2048, device=args.device), 1000
    labels = torch.randint(classes, (len(features),), device=args.device)
    fit = timed(lambda: fit_linear_classifier(features, labels, classes, 1e-3, max_iter=4))
    # Each call evaluates the objective once more, at the end.
    rows.append(('10,000 images in an iteration of the linear classifier, 1000 classes', fit / 5))

    machine = torch.cuda.get_device_name() if args.device != 'cpu' else platform.processor()
    print(f'{machine or platform.machine()}, {torch.get_num_threads()} threads')
    print(f'torch {torch.__version__}, {args.backbone or "ResNet-50"}')
    print('\n| what | seconds |\n|---|---:|')
    for name, value in rows:
        print(f'| {name} | {value:.3f} |')


if __name__ == '__main__':
    main()
