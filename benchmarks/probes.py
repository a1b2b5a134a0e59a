#!/usr/bin/env python
"""What the probes of frozen features cost, step by step.

    python benchmarks/probes.py [--data data/miniscenes] [--repeats 3] [--memory 100000]

- *demo*: a ResNet-18 of half width on MiniScenes (``tools/make_miniscenes.py data/miniscenes``), as
  the demo has it: kNN and linear probe of stills at 64 px, masks through a frame of 160 x 120
  pixels, in-context segmentation of a still of 128 px. These rows are left out without the data.
- *paper*: a ResNet-50 on noise, which costs what photographs do: a frame of 480 x 854 pixels by the
  protocol ``vfs``, its features and its comparison with the full context of 21 frames; an image of
  512 px in context, its features and the search for its patches, whose time grows as ``--memory``;
  an image of 224 px; a pass of the linear probe, some hundreds of which it takes.

A figure is the median of the repeats, once warm, in seconds on the clock and of all cores together,
which other work on the machine changes less.
"""

import argparse
import os
import platform
import shlex
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

REPO = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(REPO))

import torch  # noqa: E402

from projects.miniscenes_study import frozen  # noqa: E402
from vito_mm.probes import davis, incontext  # noqa: E402
from vito_mm.probes.features import labelled_features  # noqa: E402
from vito_mm.probes.knn import knn_top1  # noqa: E402
from vito_mm.probes.label_propagation import PROPAGATIONS, propagate  # noqa: E402
from vito_mm.probes.linear_classifier import fit_linear_classifier, linear_accuracy  # noqa: E402
from vito_mm.probes.loading import load_encoder, resnet  # noqa: E402

Step = tuple[str, int, Callable[[], Any]]
"""Name of a step, the items that it takes, and the step."""


def demo_steps(data: Path) -> Iterator[Step]:
    """Steps of the demo's probes."""
    network = resnet(frozen.DEPTH, frozen.BASE_CHANNELS)
    encoder = load_encoder(None, network=network)
    size = frozen.IMAGE_SIZE
    found = labelled_features(encoder, data / 'probe', size)
    count = len(found[0]) + len(found[2])
    yield 'features of a still', count, lambda: labelled_features(encoder, data / 'probe', size)
    yield 'kNN, a test still', len(found[2]), lambda: knn_top1(*found)
    yield 'linear probe, all stills', 1, lambda: linear_accuracy(*found)
    fine = load_encoder(None, network=network, output_stride=frozen.OUTPUT_STRIDE)
    sequence = davis.find_sequences(data / 'davis')[0]
    place = frozen.LAYER, frozen.PROPAGATION
    frames = len(sequence.frames)
    yield 'masks, a frame', frames, lambda: davis.score_sequence(fine, sequence, *place)
    still = torch.randint(256, (1, 128, 128, 3), dtype=torch.uint8)
    yield from in_context_steps(fine, frozen.LAYER, still, frozen.IN_CONTEXT.memory, classes=21)


def paper_steps(memory: int) -> Iterator[Step]:
    """Steps of a ResNet-50 at full size."""
    settings = PROPAGATIONS['vfs']
    encoder = load_encoder(None, network=resnet(50), output_stride=settings.output_stride)
    frame = torch.randint(256, (1, 480, 854, 3), dtype=torch.uint8)
    features = encoder(frame, 'res4')[0]
    grid = tuple(features.shape[1:])
    cells = torch.nn.functional.normalize(features.flatten(1).T, dim=1).contiguous()
    labels = torch.rand(len(cells), 3)
    context = settings.context + 1
    yield 'masks, features of a frame', 1, lambda: encoder(frame, 'res4')
    yield (
        *(f'masks, comparison with {context} frames', 1),
        lambda: propagate(cells, [cells] * context, [labels] * context, grid, settings),
    )
    image = torch.randint(256, (1, 512, 512, 3), dtype=torch.uint8)
    encoder = load_encoder(None, network=resnet(50))
    yield from in_context_steps(encoder, 'last', image, memory, 21)
    images = torch.randint(256, (32, 224, 224, 3), dtype=torch.uint8)
    yield 'features of an image of 224 px', len(images), lambda: encoder(images)
    features, classes = torch.randn(10_000, 2048), 1000
    labels, evaluations = torch.randint(classes, (len(features),)), 5
    yield (
        *('linear probe, a pass over 10,000 images, 1000 classes', evaluations),
        lambda: fit_linear_classifier(features, labels, classes, 1e-3, max_iter=evaluations - 1),
    )


def in_context_steps(
    encoder: Any, layer: str, image: torch.Tensor, memory: int, classes: int
) -> Iterator[Step]:
    """Steps of an image that is segmented in context."""
    queries = encoder(image, layer)[0].flatten(1).T
    known = torch.nn.functional.normalize(torch.randn(memory, queries.shape[1]), dim=1).half()
    known = incontext.Memory(known, torch.rand(memory, classes).half())
    settings = frozen.IN_CONTEXT
    yield 'in context, features of an image', 1, lambda: encoder(image, layer)
    yield (
        *(f'in context, {len(queries)} patches in {memory:,}', 1),
        lambda: incontext.segment(queries, known, settings.neighbours, settings.temperature),
    )


def measured(step: Callable[[], Any], repeats: int) -> tuple[float, float]:
    """Median seconds on the clock and of all cores, of a step that ran once before."""
    step()
    times = []
    for _ in range(repeats):
        start = time.perf_counter(), time.process_time()
        step()
        times.append((time.perf_counter() - start[0], time.process_time() - start[1]))
    return tuple(statistics.median(side) for side in zip(*times, strict=True))


def main() -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--data', type=Path, default=Path('data/miniscenes'), help='MiniScenes')
    parser.add_argument('--repeats', type=int, default=3, help='times of each step')
    parser.add_argument('--memory', type=int, default=100_000, help='patches of the paper rows')
    parser.add_argument('--only', choices=['demo', 'paper'], help='rows to measure')
    args = parser.parse_args()
    print(f'command   {shlex.join(["python", "benchmarks/probes.py", *sys.argv[1:]])}')
    print(f'machine   {platform.machine()}, {torch.get_num_threads()} threads, torch', end=' ')
    print(f'{torch.__version__}, load before: {os.getloadavg()[0]:.1f}')
    print(f'\n{"rows":6}{"step":44}{"seconds":>10}{"of cores":>10}', flush=True)
    kinds = {'demo': demo_steps(args.data), 'paper': paper_steps(args.memory)}
    if not args.data.is_dir():
        del kinds['demo']
    for kind, steps in kinds.items():
        if args.only in (None, kind):
            for name, items, step in steps:
                shown = (seconds / items for seconds in measured(step, args.repeats))
                print(f'{kind:6}{name:44}' + ''.join(f'{x:>10.5f}' for x in shown), flush=True)


if __name__ == '__main__':
    main()
