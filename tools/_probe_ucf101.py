"""The sub-command of probe.py that fine-tunes on videos in class folders."""

import argparse
from pathlib import Path
from typing import Any

from _arguments import add_shared, positive
from _probing import RANDOM, add_probe, add_work_dir, first_file, folder_names, probe_trained

CONFIG = 'ucf101_r50.py'


def add_ucf101(probes: Any) -> None:
    """Add fine-tuning on videos."""
    text = "fine-tune on videos in class folders by the paper's protocol for UCF101"
    parser = add_probe(probes, 'ucf101', probe_ucf101, text)
    add = parser.add_argument
    add_shared(
        parser,
        '--data',
        type=Path,
        required=True,
        help='folder with CLASS/VIDEO, or with UCF-101/CLASS/VIDEO',
    )
    for part in ('train', 'test'):
        add(
            f'--{part}-list',
            type=Path,
            metavar='FILE',
            help='list of videos, CLASS/VIDEO a line (default: in the folder '
            f'ucfTrainTestlist/{part}list01.txt)',
        )
    add('--config', metavar='CONFIG', help=f'the protocol (default: {CONFIG})')
    add('--epochs', type=positive, metavar='N', help="shorter or longer (default: the config's)")
    add_shared(parser, '--size', default=None, help="side of the frames (default: the config's)")
    add_shared(parser, '--batch-size', help="videos per step (default: the config's)")
    add_shared(parser, '--workers', help="processes that read, 0: this one (default: the config's)")
    add_work_dir(parser, 'ucf101')
    add_shared(parser, '--cfg-options')


def probe_ucf101(args: argparse.Namespace) -> list[dict[str, Any]]:
    """Fine-tune each checkpoint on the videos."""
    from vito_mm.launch import parse_options
    from vito_mm.probes import action_recognition

    words = args.cfg_options or ()
    base = action_recognition.read_protocol(args.config or CONFIG, words)
    args.cfg_options = parse_options(words)
    videos = action_recognition.find_split(args.data, args.train_list, args.test_list)
    names = ('epochs', 'size', 'batch_size', 'workers', 'which', 'seed', 'backbone', 'depth')
    settings = {name: getattr(args, name) for name in (*names, 'base_channels')}
    settings['like'] = first_file(args)
    runs = {}
    for label, checkpoint in zip(folder_names(args.checkpoints), args.checkpoints, strict=True):
        file = None if checkpoint == RANDOM else checkpoint
        folder = args.work_dir / label
        runs[label] = action_recognition.protocol_config(base, videos, file, folder, **settings)
    report = action_recognition.write_report
    return probe_trained(args, runs, action_recognition.scores, report, videos=videos.identity())
