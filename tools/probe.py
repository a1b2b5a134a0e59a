#!/usr/bin/env python
"""Scores of the frozen features of checkpoints, in minutes: one table for all of them.

CHECKPOINT is a file with a network, or "random" for random weights, the baseline.
"""

import argparse
import sys
import time
from contextlib import redirect_stdout
from functools import partial
from pathlib import Path
from typing import Any

from _arguments import Parser, add_shared, cores, natural, positive
from _evaluation import ProbeReport, split_labels
from _probe_robustness import add_robustness, problem_of
from _probe_ucf101 import add_ucf101
from _probing import (
    FOR_REPORT,
    RANDOM,
    add_images,
    add_probe,
    add_recorded,
    default_layer,
    encoder,
    first_file,
    folder_names,
    network_of,
    open_each,
    probe_each,
    probe_trained,
    record,
    table,
)

PROPAGATIONS = ('vfs', 'crw', 'dino')  # of vito_mm.probes.label_propagation


def main() -> None:
    """Parse the command line, probe each checkpoint, and print the table."""
    args = parse_arguments()
    from vito_mm.checkpoint import Checkpoint, CheckpointError
    from vito_mm.probes.image_folders import ProbeError

    try:
        # What the libraries print goes where it does not mix with the table.
        with redirect_stdout(sys.stderr):
            words = args.checkpoints
            args.labels, args.checkpoints = split_labels(words)
            args.reported = ProbeReport(args, args.parser, words) if args.evaluation else None
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
    images = add_knn, add_linear, add_classify, add_robustness
    dense = add_segment, add_linear_segmentation, add_incontext
    for add in (*images, *dense, add_davis, add_ucf101):
        add(probes)
    args = parser.parse_args()
    if args.name == 'classify' and RANDOM in args.checkpoints:
        parser.error('random weights have no classifier: classify needs files')
    if args.name == 'robustness' and (problem := problem_of(args)):
        parser.error(problem)
    is_file = args.name == 'linear' and args.save_head and args.save_head.suffix == '.pth'
    if is_file and len(args.checkpoints) > 1:
        parser.error('--save-head: name a folder, for the heads of several checkpoints')
    return args


def add_knn(probes: Any) -> None:
    """Add the probe by nearest neighbours."""
    parser = add_probe(probes, 'knn', probe_images, 'classify by nearest neighbours: no training')
    add_images(parser, 'knn')
    parser.add_argument('--k', type=positive, default=20, metavar='N', help='number of neighbours')


def add_linear(probes: Any) -> None:
    """Add the linear classifier."""
    parser = add_probe(probes, 'linear', probe_images, 'classify linearly')
    add_images(parser, 'linear')
    parser.add_argument(
        '--save-head',
        type=Path,
        metavar='PLACE',
        help='keep the classifiers for robustness --head: FILE.pth for one checkpoint, or a folder',
    )


def add_classify(probes: Any) -> None:
    """Add the classifier of the file."""
    text = 'classify by the classifier in the file: no training'
    add_images(add_probe(probes, 'classify', probe_images, text), 'classify')


def add_segment(probes: Any) -> None:
    """Add linear segmentation."""
    text = 'segment linearly, on the data of a config of mmseg'
    add_segmentation(probes, 'segment', text, steps=2000, lr=1e-2, recipe='short')


def add_linear_segmentation(probes: Any) -> None:
    """Add linear segmentation as DINOv3 has it."""
    text = "segment linearly by DINOv3's recipe, on the data of a config of mmseg"
    settings = dict(steps=40_000, lr=1e-3, recipe='dinov3')
    parser = add_segmentation(probes, 'linear-segmentation', text, **settings)
    add_shared(parser, '--size', default=512, help='side of training crops and of test windows')


def add_segmentation(
    probes: Any, name: str, text: str, steps: int, lr: float, recipe: str
) -> Parser:
    """Add a probe that trains a linear head on feature maps, by a recipe and its defaults."""
    parser = add_probe(probes, name, probe_segment, text, *["the config's"] * 2)
    add = parser.add_argument
    add('--config', required=True, metavar='CONFIG', help='config of mmseg')
    add(
        '--stages',
        type=int,
        nargs='+',
        metavar='N',
        help='1 to 4 for layer1 to layer4, or blocks of a transformer, from 1; several are '
        'concatenated (default: the last feature map)',
    )
    add('--steps', type=positive, default=steps, metavar='N', help='training steps')
    add('--lr', type=float, default=lr, metavar='RATE', help='highest learning rate')
    add_shared(parser, '--batch-size', default=16, help='images per step')
    add_shared(parser, '--workers', help="processes that read, 0: this one (default: the config's)")
    folder = 'work_dirs/probe' if name == 'segment' else f'work_dirs/probe/{name}'
    add_shared(
        parser, '--work-dir', type=Path, help=f'folder of the runs (default: {folder}/CONFIG)'
    )
    add_shared(parser, '--cfg-options')
    parser.set_defaults(recipe=recipe)
    return parser


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
    add('--write-videos', action='store_true', help='a video of each sequence with the masks, too')


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
    add(
        '--seeds', type=positive, default=1, metavar='N', help='repetitions, with seeds from --seed'
    )
    add_shared(parser, '--size', default=512)
    add_shared(parser, '--batch-size', default=16)
    add_shared(parser, '--workers')
    add_shared(parser, '--cfg-options')


def probe_davis(args: argparse.Namespace) -> list[dict[str, Any]]:
    """Propagate masks by the features of each checkpoint."""
    from dataclasses import asdict, replace

    from vito_mm.probes import davis
    from vito_mm.probes.label_propagation import PROPAGATIONS as SETTINGS
    from vito_mm.transfer.report.data_identity import identify_places
    from vito_mm.videos.prepare.integrity import import_av

    if args.write_videos:
        import_av()  # fail before the first probe
    chosen = dict(short_side=args.size, radius=args.radius)
    changes = {name: value for name, value in chosen.items() if value is not None}
    settings = replace(SETTINGS[args.protocol], **changes)
    sequences = davis.find_sequences(args.data, args.split)
    places = {
        f'{sequence.name} {kind}': files[0].parent
        for sequence in sequences
        for kind, files in (('frames', sequence.frames), ('masks', sequence.masks))
    }
    data = identify_places(places).digest

    def open_record(label: str, checkpoint: str, network: Any) -> Any:
        layer = args.layer or default_layer(network, 'res4')
        said = dict(settings=asdict(settings), layer=layer, data=data)
        return record(args, label, checkpoint, said)

    opened = partial(encoder, args, output_stride=settings.output_stride)
    records, network = open_each(args, opened, open_record)
    masks, videos = (args.work_dir / kind for kind in ('masks', 'videos'))

    def probe(label: str, checkpoint: str) -> tuple[Any, dict[str, Any]]:
        places = masks / label, videos / label if args.write_videos else None
        known, layer = records[label], records[label].identity['layer']
        found = davis.evaluate(
            network(label, checkpoint), sequences, known, layer, settings, *places
        )
        frames = [each['seconds'] for each in found.values()]
        return found, davis.summary(found) | {'s per frame': sum(frames) / len(frames)}

    def write_report(folder: Path, results: dict[str, Any]) -> Path:
        places = [{k: kind / k for k in results} for kind in (masks, videos)]
        shown = places if args.write_videos else places[:1]
        return davis.write_report(folder, results, sequences, args.protocol, *shown)

    return probe_each(args, probe, write_report)


def probe_incontext(args: argparse.Namespace) -> list[dict[str, Any]]:
    """Segment by the nearest training patches of each checkpoint's features."""
    from dataclasses import asdict

    from vito_mm.probes import incontext
    from vito_mm.probes.incontext_report import write_report
    from vito_mm.probes.segmentation_config import read_segmentation_config
    from vito_mm.transfer.report.data_identity import identify_data_sets

    cfg = read_segmentation_config(args.config, args.cfg_options or ())
    parts = [cfg[f'{part}_dataloader'].dataset for part in ('train', 'val')]
    sizes = dict(memory=args.memory, epochs=args.epochs, seed=args.seed)
    settings = incontext.InContext(args.size, args.neighbours, **sizes)
    data = dict(datasets=[part.to_dict() for part in parts], data=identify_data_sets(*parts).digest)

    def open_record(label: str, checkpoint: str, network: Any) -> Any:
        layer = args.layer or default_layer(network, 'last')
        said = dict(settings=asdict(settings), layer=layer, **data)
        return record(args, label, checkpoint, said)

    records, network = open_each(args, partial(encoder, args), open_record)
    predictions = args.work_dir / 'predictions'
    workers = cores() if args.workers is None else args.workers

    def probe(label: str, checkpoint: str) -> tuple[Any, dict[str, Any]]:
        known = records[label]
        place = known.identity['layer'], args.batch_size, workers, predictions / label
        found = incontext.evaluate(
            network(label, checkpoint), *parts, settings, args.seeds, known, *place
        )
        by_seed = {seed: {'mIoU': each['mIoU']} for seed, each in enumerate(found, args.seed)}
        return found, incontext.summary(found) | {FOR_REPORT: dict(seeds=by_seed)}

    def report(folder: Path, results: dict[str, Any]) -> Path:
        places = {label: predictions / label for label in results}
        return write_report(folder, results, parts[1], settings, places)

    return probe_each(args, probe, report)


def probe_images(args: argparse.Namespace) -> list[dict[str, Any]]:
    """Classify images by the features, or the classifier, of each checkpoint."""
    from vito_mm.probes.features import classifier_accuracy, labelled_features
    from vito_mm.probes.knn import knn_top1
    from vito_mm.probes.labelled_images import labelled_frames
    from vito_mm.probes.training import write_scores
    from vito_mm.transfer.report.data_identity import identify_place
    from vito_mm.transfer.report.known_tests import KNOWN

    is_own = args.name == 'classify'
    images = None if is_own else labelled_frames(args.data, args.size)
    workers = cores() if args.workers is None else args.workers
    sizes = args.size, args.batch_size, workers
    said = dict(data=identify_place(args.data).digest, size=args.size, k=getattr(args, 'k', None))
    if args.name == 'linear':
        said['seed'] = args.seed
    records, network = open_each(
        args,
        partial(encoder, args, classifier=is_own),
        lambda label, checkpoint, _: record(args, label, checkpoint, said),
    )

    def score(label: str, checkpoint: str) -> dict[str, Any]:
        opened = network(label, checkpoint)
        if args.name == 'linear':
            return fit_head(args, label, checkpoint, opened, images, sizes, records[label])
        if args.name == 'knn':
            return {'top-1': knn_top1(*labelled_features(opened, args.data, *sizes), k=args.k)}
        top1, top5 = classifier_accuracy(opened, args.data, *sizes)
        return {'top-1': top1} | ({} if top5 is None else {'top-5': top5})

    def probe(label: str, checkpoint: str) -> tuple[Any, dict[str, Any]]:
        parts = records[label].parts
        if 'result' not in parts or not is_head_kept(args, label, parts):
            started = time.monotonic()
            found = score(label, checkpoint)
            records[label].put('result', found | dict(seconds=time.monotonic() - started))
        return parts['result'], dict(parts['result'])

    def write_report(folder: Path, results: dict[str, Any]) -> Path:
        title = KNOWN['probe', args.name].title
        text = f'{args.parser.description} Images of {args.size} pixels of {args.data}. In percent.'
        return write_scores(folder, args.name, title, text, results)

    return probe_each(args, probe, write_report)


def head_file(args: argparse.Namespace, label: str) -> Path | None:
    """Where the linear classifier of a checkpoint is kept, if it is."""
    place = getattr(args, 'save_head', None)
    return place / f'{label}.pth' if place and place.suffix != '.pth' else place


def is_head_kept(args: argparse.Namespace, label: str, parts: dict[str, Any]) -> bool:
    """Whether the classifier that is asked for is there, and of the result that is known."""
    from vito_mm.utils.hashing import sha256_of_file

    file = head_file(args, label)
    return file is None or (file.is_file() and sha256_of_file(file) == parts.get('head'))


def fit_head(
    args: argparse.Namespace,
    label: str,
    checkpoint: str,
    network: Any,
    images: Any,
    sizes: tuple[int, int, int],
    known: Any,
) -> dict[str, Any]:
    """Classify images linearly, with features in files, and keep the classifier if asked."""
    import shutil

    from vito_mm.probes.classification_head import ClassificationHead
    from vito_mm.probes.features import labelled_features
    from vito_mm.probes.linear_classifier import STRENGTHS, linear_accuracy
    from vito_mm.utils.hashing import hash64, sha256_of_file
    from vito_mm.utils.progress import Progress

    listed = [str(item) for part in (images.train, images.val) for item in part.items()]
    digest = hash64(str(known.identity), *listed)
    folder = args.work_dir / f'{label}-{digest:016x}'
    folder.mkdir(parents=True, exist_ok=True)
    features = labelled_features(network, args.data, *sizes, folder=folder)
    with Progress(len(STRENGTHS) + 1, 'linear classifier', None, 'fits') as bar:
        options = dict(seed=args.seed, device=network.device, folder=folder, advance=bar.advance)
        result = linear_accuracy(*features, **options)
    if file := head_file(args, label):
        training = dict(data=known.identity['data'], seed=args.seed)
        told = images.classes, network_of(args, checkpoint), args.size, training
        ClassificationHead(result.classifier, *told).save(file)
        known.put('head', sha256_of_file(file))
        print(f'head: {file}', file=sys.stderr)
    shutil.rmtree(folder)
    top5 = {} if result.top5 is None else {'top-5': result.top5}
    return {'top-1': result.top1, **top5, 'L2': result.strength}


def probe_segment(args: argparse.Namespace) -> list[dict[str, Any]]:
    """Train a linear segmentation head on each checkpoint's features."""
    from vito_mm.launch import parse_options
    from vito_mm.probes import segmentation
    from vito_mm.probes.segmentation_config import read_segmentation_config
    from vito_mm.transfer.report.data_identity import identify_data_sets

    words = args.cfg_options or ()
    base = read_segmentation_config(args.config, words, needs_resnet=args.backbone is None)
    args.cfg_options = parse_options(words)
    is_short = args.recipe == 'short'
    folder = Path('work_dirs/probe') / ('' if is_short else args.name)
    args.work_dir = args.work_dir or folder / Path(args.config).stem
    names = ('stages', 'steps', 'lr', 'batch_size', 'workers', 'which', 'seed', 'backbone')
    names += ('depth', 'base_channels', 'recipe') + (() if is_short else ('size',))
    settings = {name: getattr(args, name) for name in names}
    settings['like'] = first_file(args)
    runs = {}
    for label, checkpoint in zip(folder_names(args.checkpoints), args.checkpoints, strict=True):
        file = None if checkpoint == RANDOM else checkpoint
        runs[label] = segmentation.probe_config(base, file, args.work_dir / label, **settings)
    for cfg in runs.values():
        segmentation.check_probe(cfg)
    data = identify_data_sets(*(base[f'{p}_dataloader'].dataset for p in ('train', 'val')))
    report = partial(segmentation.write_report, recipe=args.recipe)
    return probe_trained(args, runs, segmentation.in_order, report, data=data.digest)


if __name__ == '__main__':
    main()
