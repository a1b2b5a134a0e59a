"""Results of the tools as entries of the report on all tests of all checkpoints."""

import argparse
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from _arguments import Parser, given_options, option_words

PLACES = ('out', 'work_dir', 'evaluation', 'save_head', 'head', 'classes', 'write_videos')
MACHINE = ('device', 'workers', 'gpus', 'gpus_per_run', 'jobs', 'launcher')
NETWORK = ('which', 'backbone', 'depth', 'base_channels')
SEEDS = ('seed', 'seeds')
DATA = ('data', 'config')
_NO_RESULT = ('data_root', 'ann_file', 'img_path', 'seg_map_path', 'num_workers')
"""Ends of the keys of a config that say where data lie, or how they are read."""


def split_labels(words: Sequence[str]) -> tuple[list[str], list[str]]:
    """Split ``'label=file'`` words into names for tables, the file where there is none, and files.

    Raises:
        ValueError: If 'random' names a file.
    """
    if not any('=' in word for word in words):
        return list(words), list(words)
    from vito_mm.transfer.options import split_label

    pairs = [split_label(word) for word in words]
    return [label or file for label, file in pairs], [file for _, file in pairs]


def started_by(argv: str) -> list[str]:
    """Words that start a tool: its file, or ``vito-mm`` where that has started it."""
    if '.mim' in Path(argv).parts:
        return ['vito-mm', Path(argv).stem]
    return [os.path.relpath(argv)]


class ProbeReport:
    """Adds results of a probe to the report of an evaluation.

    Args:
        args (argparse.Namespace): Command line of the probe, as the user gave it.
        parser (Parser): Parser of the sub-command.
        words (Sequence[str]): Checkpoints with their labels.

    Raises:
        ResultsError: If the folder holds something else.
        ValueError: If a label or a file comes twice.
    """

    def __init__(self, args: argparse.Namespace, parser: Parser, words: Sequence[str]) -> None:
        from vito_mm.transfer.options import label_checkpoints
        from vito_mm.transfer.report.results import read_results

        read_results(args.evaluation)  # fail before the first probe
        self.args, self.data, self.known = args, None, None
        unique = dict.fromkeys(words)
        by_word = dict(zip(unique, label_checkpoints(list(unique)), strict=True))
        self.labels = dict(zip(args.checkpoints, map(by_word.get, words), strict=True))
        self.given = given_options(parser, args)
        self.network_words = {name: value for name, value in self.given.items() if name in NETWORK}
        without = (*NETWORK, 'seed', 'out', 'evaluation')
        rest = {name: value for name, value in self.given.items() if name not in without}
        self.network_options = option_words(parser, self.network_words)
        before = [*started_by(sys.argv[0]), args.name, 'CHECKPOINTS']
        self.command = [*before, *option_words(parser, rest), '--evaluation', str(args.evaluation)]

    def add(
        self,
        checkpoint: str,
        row: Mapping[str, Any],
        seeds: Mapping[int, Mapping[str, Any]] | None = None,
        settings: Mapping[str, Any] | None = None,
    ) -> None:
        """Add what was found on a checkpoint, and write the report.

        Args:
            checkpoint (str): File, or 'random'.
            row (Mapping): Figures, with the seconds that all of it took.
            seeds (Mapping, optional): Figures by seed. Defaults to those of the row, of ``--seed``.
            settings (Mapping, optional): Settings besides the given options, such as which head the
                figures are of. Defaults to None.
        """
        from vito_mm.transfer.report.evaluation import write_evaluation
        from vito_mm.transfer.report.known_tests import KNOWN
        from vito_mm.transfer.report.results import Result, put_results
        from vito_mm.utils.provenance import conditions

        args = self.args
        self.known = KNOWN.get(('probe', args.name))
        self.data = self.data or self._identify_data()
        weights = self._network(checkpoint)
        by_seed = seeds or {args.seed: {k: v for k, v in row.items() if k != 'seconds'}}
        seconds, facts = row['seconds'] / len(by_seed), conditions()
        if getattr(args, 'device', None):
            facts['machine'] += f', on {args.device}'
        put_results(
            args.evaluation,
            [
                Result(
                    *('probe', args.name, self.known.title if self.known else args.name, self.data),
                    self._settings(self.known is None or self.known.is_trained) | (settings or {}),
                    *(weights, seed, numbers_of(figures), seconds),
                    tuple(self.command),
                    facts,
                )
                for seed, figures in by_seed.items()
            ],
        )
        print(f'evaluation: {write_evaluation(args.evaluation)}', file=sys.stderr)

    def _settings(self, is_trained: bool) -> dict[str, Any]:
        """Given options that decide figures, but for data, network and seed."""
        from vito_mm.utils.hashing import sha256_of_file

        outside = {*PLACES, *MACHINE, *NETWORK, *SEEDS, *DATA}
        outside |= set() if is_trained else {'batch_size'}
        settings = {k: v for k, v in self.given.items() if k not in outside}
        # Of several data folders, each with an option of its own, the data tell.
        settings = {
            name: sha256_of_file(value)[:8] if isinstance(value, Path) else value
            for name, value in settings.items()
            if not (isinstance(value, Path) and value.is_dir())
        }
        if options := settings.pop('cfg_options', None):
            kept = [text for text in options if not text.split('=')[0].endswith(_NO_RESULT)]
            settings |= {'cfg_options': kept} if kept else {}
        if is_trained and 'config' in self.given:
            # Where it does not name the data it is a protocol other than the published one.
            name = 'protocol' if 'data' in self.given else 'config'
            settings[name] = Path(self.given['config']).name
        return settings

    def _identify_data(self) -> Any:
        from vito_mm.transfer.report.data_identity import (
            identify_data_sets,
            identify_place,
            identify_places,
        )

        if 'data' in self.given:
            return identify_place(self.given['data'], getattr(self.args, 'split', 'val'))
        if 'config' in self.given:
            cfg = self._segmentation_config()
            return identify_data_sets(*(cfg[f'{p}_dataloader'].dataset for p in ('train', 'val')))
        places = {k: v for k, v in self.given.items() if isinstance(v, Path) and k not in PLACES}
        return identify_places(places)

    def _network(self, checkpoint: str) -> Any:
        from _probing import RANDOM, encoder, first_file

        from vito_mm.checkpoint import Checkpoint
        from vito_mm.probes.loading import resnet_of_file
        from vito_mm.transfer.report.results import Network, resnet_name

        args, options = self.args, self.network_options
        is_random = checkpoint == RANDOM
        if args.backbone is None:
            file = first_file(args) if is_random else checkpoint
            size = resnet_of_file(file, args.which) or (None if file else self._default_resnet())
            asked = dict(depth=args.depth, base_channels=args.base_channels)
            size = size and size | {name: value for name, value in asked.items() if value}
        if args.backbone:
            name = args.backbone
        elif size:
            name = resnet_name(size['depth'], size['base_channels'])
            if is_random:
                options = [f'--depth={size["depth"]}', f'--base-channels={size["base_channels"]}']
        else:
            name = type(encoder(args, checkpoint).backbone).__name__
        which = 'online' if is_random else args.which
        digest = '' if is_random else Checkpoint.read(checkpoint).sha256
        label = self.labels[checkpoint]
        return Network(label, checkpoint, digest, which, name, tuple(options))

    def _default_resnet(self) -> dict[str, Any]:
        """The network of random weights where no file and no option tells it."""
        from vito_mm.probes.loading import resnet

        if self.known is None or not self.known.is_trained or 'data' in self.given:
            return resnet()
        backbone = self._segmentation_config().model.backbone
        return resnet(backbone.get('depth', 50), backbone.get('base_channels', 64))

    def _segmentation_config(self) -> Any:
        from vito_mm.probes.segmentation_config import read_segmentation_config

        options = self.given.get('cfg_options') or ()
        return read_segmentation_config(self.given['config'], options)


def suite_words(parser: Parser, args: argparse.Namespace) -> list[str]:
    """Words of a transfer suite's command, ``CHECKPOINTS`` and ``TASK`` in the place of those."""
    without = ('checkpoints', 'tasks', 'labels', 'frozen_backbone')
    without += ('dry_run', 'no_estimate', 'report_only', 'redo', 'yes', 'evaluation')
    given = {k: v for k, v in given_options(parser, args).items() if k not in without}
    before = [*started_by(sys.argv[0]), '--checkpoints', 'CHECKPOINTS', '--tasks', 'TASK']
    return [*before, *option_words(parser, given), '--evaluation', str(args.evaluation)]


def add_suite(folder: Path, work_dir: Path, words: Sequence[str]) -> None:
    """Add the results of a transfer suite to the report of an evaluation, and write it.

    Args:
        folder (Path): Folder of the report.
        work_dir (Path): Folder of the suite.
        words (Sequence[str]): See :func:`suite_words`.
    """
    from vito_mm.transfer.report.evaluation import write_evaluation
    from vito_mm.transfer.report.results import put_results
    from vito_mm.transfer.report.suite_results import results_of_suite

    put_results(folder, results_of_suite(work_dir, words), all_seeds=True)
    print(f'evaluation: {write_evaluation(folder)}')


def numbers_of(figures: Mapping[str, Any]) -> dict[str, float]:
    """Figures of a row that are numbers."""
    return {
        name: value
        for name, value in figures.items()
        if isinstance(value, (int, float)) and not isinstance(value, bool)
    }
