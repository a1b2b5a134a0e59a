"""The sub-command of probe.py for images that are unlike those of the training."""

import argparse
from functools import partial
from pathlib import Path
from typing import Any

from _arguments import add_shared, cores
from _probing import (
    FOR_REPORT,
    RANDOM,
    add_probe,
    add_work_dir,
    encoder,
    network_of,
    open_each,
    probe_each,
)

DATA = {
    'val': 'clean images, CLASS/',
    'imagenet-a': 'ImageNet-A, CLASS/',
    'vid-robust': 'ImageNet-Vid-Robust: frames, and metadata/*.json',
    'imagenet-c': 'ImageNet-C, CORRUPTION/SEVERITY/CLASS/',
    'corrupt': 'clean images, CLASS/, which are corrupted as in ImageNet-C by corrupt-tta',
    '3dcc': 'ImageNet-3DCC, CORRUPTION/SEVERITY/CLASS/',
}
"""Tests of vito_mm.probes.robustness_suite, and the data that each option names."""


def add_robustness(probes: Any) -> None:
    """Add the tests of robustness."""
    text = 'classify images that are unlike those of the training'
    parser = add_probe(probes, 'robustness', probe_robustness, text)
    add = parser.add_argument
    for name, what in DATA.items():
        add(f'--{name}', type=Path, metavar='FOLDER', help=what)
    add(
        '--head',
        default='own',
        metavar='PLACE',
        help='file of linear --save-head, or folder of them; own: the classifier in the checkpoint',
    )
    add(
        '--classes',
        type=Path,
        metavar='FILE',
        help='names of the class folders in the order of the own classifier, one per line '
        "(default: ImageNet's of 1000, or those in the checkpoint)",
    )
    add_shared(
        parser, '--size', default=None, help='side of the images (default: that of the head, 224)'
    )
    add_shared(parser, '--batch-size', default=128)
    add_shared(parser, '--workers')
    add_shared(parser, '--device')
    add_work_dir(parser, 'robustness')


def problem_of(args: argparse.Namespace) -> str | None:
    """What is wrong with the arguments as a whole, if anything."""
    if not _data(args):
        return f'name data: {", ".join(f"--{name}" for name in DATA)}'
    if args.head == 'own' and RANDOM in args.checkpoints:
        return 'random weights have no classifier: name a head (linear --save-head) by --head'
    if args.head != 'own' and args.classes:
        return '--classes is for the classifier in the checkpoint: a head (--head) has names'
    if args.classes and not args.classes.is_file():
        return f'--classes: there is no file {args.classes}'
    return None


def probe_robustness(args: argparse.Namespace) -> list[dict[str, Any]]:
    """Test the head, or the own classifier, of each checkpoint."""
    from vito_mm.probes import robustness_suite
    from vito_mm.probes.record import Record
    from vito_mm.transfer.report.data_identity import identify_place

    data, heads, fits = _data(args), {}, {}
    digests = {test: identify_place(folder).digest for test, folder in data.items()}
    checked = set()

    def open_records(label: str, checkpoint: str, opened: tuple[Any, ...]) -> dict[str, Record]:
        classifier, heads[label], digest, fits[label] = opened
        if classifier.classes not in checked:
            robustness_suite.check_data(data, classifier.classes)
            checked.add(classifier.classes)
        said = network_of(args, checkpoint) | dict(head=digest, size=classifier.view.crop)
        noise = {'corrupt': dict(noise=args.seed)}
        return {
            test: Record(
                args.work_dir / label / f'{test}.json',
                said | dict(data=digest) | noise.get(test, {}),
            )
            for test, digest in digests.items()
        }

    records, network = open_each(args, partial(_classifier, args), open_records)

    def probe(label: str, checkpoint: str) -> tuple[Any, dict[str, Any]]:
        classifier = network(label, checkpoint)[0]
        found = robustness_suite.evaluate(classifier, data, records[label], args.seed)
        told = {FOR_REPORT: dict(settings=fits[label])}
        return found, robustness_suite.summary(found) | told

    return probe_each(args, probe, partial(robustness_suite.write_report, heads=heads))


def _data(args: argparse.Namespace) -> dict[str, Path]:
    folders = {name: getattr(args, name.replace('-', '_')) for name in DATA}
    return {name: folder for name, folder in folders.items() if folder is not None}


def _classifier(
    args: argparse.Namespace, checkpoint: str
) -> tuple[Any, str, list[str], dict[str, str]]:
    """Classifier of a checkpoint, what it is called, what tells it from others, and its fit."""
    import numpy as np

    from vito_mm.checkpoint import Checkpoint
    from vito_mm.probes.classification_head import find_head, own_classes
    from vito_mm.probes.features import classifier_view, exactly_normalised
    from vito_mm.probes.robustness import Classifier
    from vito_mm.utils.hashing import sha256_of_file
    from vito_mm.videos.frames import evaluation_view

    batch, workers = args.batch_size, cores() if args.workers is None else args.workers
    identity, head, size = network_of(args, checkpoint), None, args.size or 224
    if args.head != 'own':
        file, head = find_head(Path(args.head), identity)
        size = args.size or head.size
    network = encoder(args, checkpoint, classifier=head is None)
    width = network(np.zeros((1, size, size, 3), np.uint8)).shape[1]
    if head is None:
        named = args.classes.read_text().splitlines() if args.classes else ()
        names = own_classes(Checkpoint.read(checkpoint), width, [n for n in named if n])
        view = classifier_view(network, size)
        score = partial(network, batch_size=batch)
        return Classifier(score, names, view, batch, workers), 'own', ['own', *names], {}
    head.require(identity, width, file)
    network, head = exactly_normalised(network), head.to(network.device)
    fit = dict(head=head.training_digest[:8])

    def score(images: Any) -> Any:
        return head.logits(network(images, batch_size=batch))

    classifier = Classifier(score, head.classes, evaluation_view(size), batch, workers)
    return classifier, file.name, [sha256_of_file(file)], fit
