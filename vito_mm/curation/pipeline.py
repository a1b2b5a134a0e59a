"""The order of the stages, the table that each reads, and the job of the command line."""

import sys
from argparse import Namespace
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from vito_mm.probes.encoder import choose_device
from vito_mm.utils.atomic import written_aside
from vito_mm.utils.text import count_text
from vito_mm.utils.worker_pool import stopped_by_signals

from .classifier import Classify
from .embedding import Embed
from .manifest import write_training_manifest
from .probing import Probe
from .reference_selection import SelectByEmbedding
from .report import write_report
from .retrieval import Retrieve
from .running import Running, import_table, run_stage
from .selection import Select
from .stage import Stage, StageError
from .stage_folder import begin_again, fingerprint_of, finished_record, only_job, read_record
from .tables import TableError
from .taxonomy import load_taxonomy

BY_TITLE = ('retrieve', 'probe', 'classify', 'select', 'manifest')
"""Stages of the published procedure, in order."""

BY_EMBEDDING = ('probe', 'embed', 'select', 'select_by_embedding', 'manifest')
"""Stages where videos near reference images are kept, and no label is used."""


class Curation:
    """A curation: its table, its folder, and its stages.

    Args:
        args (Namespace): Options of ``tools/curate_videonet.py``.

    Raises:
        ValueError: If a setting is wrong, or one that the procedure needs is missing.
    """

    def __init__(self, args: Namespace) -> None:
        self.table, self.work_dir = args.table, args.work_dir
        self.manifest = args.manifest or args.work_dir / 'manifest.jsonl'
        self.rows_per_shard = args.rows_per_shard
        self.columns = dict(path=args.path_column, title=args.title_column)
        self.running = Running(args.engine, args.workers, args.redo, args.ray_address, args.gpus)
        by_embedding = args.by_embedding is not None
        self.order = BY_EMBEDDING if by_embedding else BY_TITLE
        self.stages = make_stages(args)  # by name, without the manifest
        self.named = args.stages  # by the user
        self.wanted = args.stages or self.order
        self.target = None if by_embedding else args.limit

    def run(self, command: str) -> None:
        """Run the wanted stages, each on the table of the one before, and write the report.

        Args:
            command (str): Command that the user typed.

        Raises:
            ValueError: If a setting is wrong.
            TableError: If a table cannot be read or lacks a column.
            StageError: If a stage cannot go on or keeps nothing.
        """
        wanted = self._checked()
        with only_job(self.work_dir):
            try:
                if self.running.redo and self.named and wanted:
                    self._begin_again(wanted)
                for name in wanted:
                    self._run_stage(name)
            except Exception:
                with suppress(Exception):  # the first error is the one to report
                    self.report(command)
                raise
            print(f'report: {self.report(command)}')

    def _begin_again(self, names: Sequence[str]) -> None:
        """Have stages made again, as what they read may give another result than it did."""
        self._table_for(names[0])  # raises where the first of them could not be made
        begin_again([self.work_dir / name for name in names])

    def _run_stage(self, name: str) -> None:
        table = self._table_for(name)
        if name == 'manifest':
            count = write_training_manifest(table, self.manifest)
            print(f'manifest: {count_text(count, "video")} in {self.manifest}')
            return
        counts = run_stage(self.stages[name], table, self.work_dir / name, self.running)
        reasons = ', '.join(f'{n} {text}' for text, n in counts.dropped.most_common(4))
        print(
            f'{name}: {counts.kept} of {count_text(counts.total, "video")} kept '
            f'({counts.kept / counts.total:.1%})' + (f'; dropped: {reasons}' if reasons else '')
        )

    def _checked(self) -> list[str]:
        """Order the wanted stages; raise for what is known to fail after hours of work."""
        names = set(self.wanted) - {'report'}  # which is written at the end anyway
        for name in sorted(names - {'manifest', *self.stages}):
            remedy = '--classifier' if name in self.order else 'another order: see --by-embedding'
            raise ValueError(f'stage {name!r} needs {remedy}')
        self._check_places()
        wanted = sorted(names, key=self.order.index)
        for name in wanted:
            if name != 'manifest':
                self.stages[name].check_settings()
                if self.running.engine == 'local':
                    choose_device(getattr(self.stages[name], 'device', 'cpu'))
        return wanted

    def _check_places(self) -> None:
        """Raise where results would be written into what is read."""
        table, work_dir, manifest = (
            path.resolve() for path in (self.table, self.work_dir, self.manifest)
        )
        if manifest.suffix != '.jsonl':
            raise ValueError(f'--manifest {self.manifest}: give a name that ends in .jsonl')
        if table.is_dir() and work_dir == table:
            raise ValueError(
                f'{self.work_dir} is the folder of the table: give another work dir, such as '
                f'{self.work_dir / "curation"}'
            )
        if table.parent == work_dir and table.name in ('table', *BY_TITLE, *BY_EMBEDDING):
            raise ValueError(f'{self.table} is a table of this work dir: give another work dir')
        if manifest == table or (table.is_dir() and manifest.parent == table):
            raise ValueError(
                f'--manifest {self.manifest} would be part of the table {self.table}: give another '
                'place'
            )

    def report(self, command: str = '') -> Path:
        """Write the report of the finished stages, and return its page.

        Raises:
            TableError: If no stage has been finished, or the classes are those of another taxonomy.
        """
        by_embedding = (
            self.order is BY_EMBEDDING or read_record(self.work_dir / 'embed') is not None
        )
        done = self._finished(BY_EMBEDDING if by_embedding else BY_TITLE)
        if not done:
            raise TableError(f'{self.work_dir} has no finished stage to report on')
        commands = self._remember(command)
        classes: Sequence[str] = ()
        if not by_embedding:
            taxonomy = load_taxonomy(self.stages['select'].taxonomy)
            for name, record in done.items():
                if record['identity'].get('taxonomy') not in (None, taxonomy.fingerprint):
                    raise TableError(
                        f'{self.work_dir / name} was made with other classes: give the same '
                        '--taxonomy as then'
                    )
            classes = taxonomy.names
        return write_report(self.work_dir, list(done), classes, self.target, commands)

    def _finished(self, order: Sequence[str]) -> dict[str, dict]:
        """Read the records of finished stages, each made from the one before it as it is now."""
        done, table = {}, self.work_dir / 'table'
        for name in order:
            record = read_record(self.work_dir / name)
            if record is None:
                continue
            is_of_table = read_record(table) is None or record['input'] == fingerprint_of(table)
            if not (record['finished'] and is_of_table):
                break
            done[name] = record
            table = self.work_dir / name
        return done

    def _remember(self, command: str) -> list[str]:
        file = self.work_dir / 'commands.txt'
        lines = file.read_text(encoding='utf-8').splitlines() if file.exists() else []
        command = command.encode(errors='backslashreplace').decode()  # of file names
        if command and command not in lines:
            lines.append(command)
            with written_aside(file) as unfinished:
                unfinished.write_text('\n'.join(lines) + '\n', encoding='utf-8')
        return lines

    def _table_for(self, name: str) -> Path:
        """Find the table of the nearest stage before one, or cut the user's into shards."""
        before = self.order[: self.order.index(name)]
        there = [each for each in before if read_record(self.work_dir / each) is not None]
        if there:
            table = self.work_dir / there[-1]
            finished_record(table)
            if there[-1] not in self._finished(self.order):
                raise StageError(
                    f'{table} was made from what has changed since: run stage {there[-1]!r} again '
                    'before (--stages, --redo)'
                )
            return table
        if name == 'manifest':
            raise TableError(f'{self.work_dir} has no stage to make a manifest of')
        folder, needs = self.work_dir / 'table', self.stages[name].needs
        count = import_table(
            self.table, folder, self.running, self.rows_per_shard, needs, self.columns
        )
        shards = count_text(-(-count // self.rows_per_shard), 'shard')
        print(f'{self.table}: {count_text(count, "video")} in {shards}')
        return folder


def make_stages(args: Namespace) -> dict[str, Stage]:
    """Build the stages of a curation by name, in order, see :class:`Curation`."""
    _check_options(args)
    if not args.time_limit >= 0:
        raise ValueError(f'--time-limit {args.time_limit:g}: give 0 (none) or more seconds')
    select = Select(
        tuple(args.filters), args.max_distance, args.per_class, args.seed, args.taxonomy
    )
    probe = Probe(args.min_seconds, args.check)
    common = dict(checkpoint=args.checkpoint, batch_size=args.batch_size, device=args.device)
    if args.by_embedding is None:
        names = tuple(name for name in args.classes if name.strip())  # lines of a file may be empty
        stages: list[Stage] = [Retrieve(args.taxonomy, names or None, args.limit, args.seed), probe]
        if args.classifier is not None:
            counted = dict(frames=args.frames, min_frames=args.min_frames)
            stages.append(Classify(args.classifier, taxonomy=args.taxonomy, **counted, **common))
        stages.append(select)
    else:
        if args.backbone is None:
            raise ValueError('--by-embedding needs --backbone, such as a VITO checkpoint')
        embed = Embed(args.backbone, which=args.which, size=args.size, **common)
        nearest = SelectByEmbedding(
            args.by_embedding, args.keep, args.clusters, args.seed, embed, args.fraction
        )
        stages = [probe, embed, select, nearest]
    for stage in stages:
        stage.time_limit = args.time_limit or None
    return {stage.name: stage for stage in stages}


def _check_options(args: Namespace) -> None:
    """Raise a ValueError that names an option of the other procedure or engine."""
    by_embedding = args.by_embedding is not None
    of_embedding = dict(backbone=None, which=Embed.which, size=Embed.size, keep=None, fraction=None)
    of_embedding |= dict(clusters=SelectByEmbedding.clusters)
    of_labels = dict(classifier=None, frames=Classify.frames, min_frames=Classify.min_frames)
    of_labels |= dict(classes=[], limit=Retrieve.limit, per_class=None)
    for options, is_used, where in (
        (of_embedding, by_embedding, 'with --by-embedding'),
        (of_labels, not by_embedding, 'without --by-embedding'),
        (dict(ray_address=None, gpus=0), args.engine == 'ray', 'with --engine ray'),
    ):
        for name, default in options.items():
            if not is_used and getattr(args, name) != default:
                raise ValueError(f'--{name.replace("_", "-")} can only be used {where}')


def run(args: Namespace, command: str) -> int:
    """Curate by the options of ``tools/curate_videonet.py``, and print errors in one line.

    Args:
        args (Namespace): The options.
        command (str): Command that the user typed.

    Returns:
        int: Status of the command: 0 if it was finished; 1 if a stage had to stop; 2 if a setting
        or table is wrong; 130 after Ctrl-C or SIGTERM.
    """
    with stopped_by_signals():
        try:
            curation = Curation(args)
            if args.stages == ['report']:
                print(f'report: {curation.report()}')
            else:
                curation.run(command)
        except KeyboardInterrupt:
            print('stopped; finished shards are kept: the same command goes on', file=sys.stderr)
            return 130
        except (StageError, OSError) as error:
            print(f'error: {error}', file=sys.stderr)
            return 1
        except (ValueError, ImportError) as error:
            print(f'error: {error}', file=sys.stderr)
            return 2
    return 0
