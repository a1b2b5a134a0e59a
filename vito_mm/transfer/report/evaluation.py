"""The report of an evaluation: all tests of all checkpoints in one document.

``tools/probe.py`` and ``tools/transfer.py`` keep their results in a folder and write it again.
"""

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from vito_mm.utils.file_lock import file_lock
from vito_mm.utils.provenance import FACTS, fact_text
from vito_mm.utils.report import (
    Block,
    Cell,
    Code,
    Heading,
    Listing,
    Paragraph,
    Table,
    to_csv,
    write_document,
)
from vito_mm.utils.text import count_text, mean_text, setting_text, time_text

from .cells import FEWER
from .known_tests import CEILING, KNOWN, SECTIONS, KnownTest, Published, known_test
from .results import Network, Result, ResultsError, read_results

_WAIT = 120.0  # seconds for another command to finish writing, which takes about one


@dataclass(frozen=True)
class Row:
    """Results of one test with one set of settings, by network and in the order of the seeds."""

    test: KnownTest
    results: Mapping[tuple[str, ...], Sequence[Result]]

    @property
    def newest(self) -> Result:
        """The result that was there last."""
        return max((r for each in self.results.values() for r in each), key=lambda r: r.time)

    @property
    def metrics(self) -> list[str]:
        """Figures that the report shows."""
        found = dict.fromkeys(m for each in self.results.values() for r in each for m in r.metrics)
        return [name for name in self.test.metrics if name in found] or list(found)

    @property
    def conditions_text(self) -> str:
        """Data and settings, as they are shown next to the title."""
        result = self.newest
        said = [result.data.name, result.data.text]
        said += [_setting_text(name, value) for name, value in result.settings.items()]
        return ', '.join(filter(None, said))


def write_evaluation(folder: Path) -> Path:
    """Write ``evaluation.html``, ``evaluation.md`` and ``evaluation.csv`` from a folder's results.

    Returns:
        Path: The page.

    Raises:
        ResultsError: If a file in the folder is no result, or another command does not end to
            write there.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)

    def busy(process: str) -> ResultsError:
        return ResultsError(
            f'another command (process {process}) is writing the report in {folder} for '
            f'{_WAIT:.0f} s now. The results are kept: end it, and give the command again'
        )

    # Who comes last has read the results of all others.
    with file_lock(folder / 'evaluation.lock', busy, _WAIT):
        results = read_results(folder)
        rows, columns = _rows(results), _columns(results)
        blocks = [
            *_introduction(columns),
            *(block for name in SECTIONS for block in _section(name, rows, columns)),
            *_not_run(rows, columns, folder),
            *_published_tables(),
            *_costs(rows),
            *_conditions(results),
        ]
        table = {'evaluation.csv': _csv(rows, columns)}
        return write_document(folder, 'Evaluation', blocks, 'evaluation', table)


def _rows(results: Sequence[Result]) -> list[Row]:
    """Group the results by test; the known tests first, in their order."""
    groups: dict[str, dict[tuple[str, ...], list[Result]]] = {}
    for result in sorted(results, key=lambda result: result.seed):
        groups.setdefault(result.row, {}).setdefault(result.network.identity, []).append(result)
    places = list(KNOWN)
    first = {}
    for result in results:
        first.setdefault(result.row, len(first))

    def place(row: Row) -> tuple[int, int]:
        key = (row.newest.tool, row.newest.test)
        return places.index(key) if key in KNOWN else len(places), first[row.newest.row]

    rows = []
    for group in groups.values():
        some = next(iter(group.values()))[0]
        rows.append(Row(known_test(some), group))
    return sorted(rows, key=place)


@dataclass(frozen=True)
class Column:
    """A network with a label that no other one in the report has."""

    network: Network
    label: str

    @property
    def is_random(self) -> bool:
        """Whether it has random weights."""
        return not self.network.sha256

    @property
    def word(self) -> str:
        """Its word on a command line."""
        network = self.network
        if self.is_random or network.label == Path(network.file).stem:
            return network.file
        return f'{network.label}={network.file}'


def _columns(results: Sequence[Result]) -> list[Column]:
    """Networks of the results, random weights first."""
    found: dict[tuple[str, ...], Network] = {}
    for result in results:  # the newest label, at the first's place
        network, before = result.network, found.get(result.network.identity)
        options = network.options or (before.options if before else ())
        found[network.identity] = replace(network, options=options)
    columns = []
    for network in sorted(found.values(), key=lambda network: bool(network.sha256)):
        label = network.label + (', target' if network.which == 'target' else '')
        same = [
            other
            for other in found.values()
            if (other.label, other.which) == (network.label, network.which)
        ]
        if len(same) > 1:
            label += f', {network.sha256[:8] or network.name or "unknown network"}'
        columns.append(Column(network, label))
    return columns


def _introduction(columns: Sequence[Column]) -> list[Block]:
    rows = []
    for column in columns:
        which = '-' if column.is_random else column.network.which
        digest = column.network.sha256[:16] or '-'
        name, file = column.network.name or '-', column.network.file
        rows.append([column.label, name, file, which, digest])
    return [
        Paragraph(
            'Percent; mean ± sample standard deviation over n seeds. A test on other data or with '
            'other settings is a row of its own. Published figures were not measured here. They '
            'are next to results of the same data set and protocol alone; all of them are at the '
            f'end. {CEILING} is the ceiling: frozen features of more data than any of the others '
            'had. Every figure of every seed is in evaluation.csv.'
        ),
        Table(['checkpoint', 'network', 'file', 'which', 'SHA-256'], rows, text=(0, 1, 2, 3, 4)),
    ]


def _section(name: str, rows: Sequence[Row], columns: Sequence[Column]) -> list[Block]:
    rows = [row for row in rows if row.test.section == name]
    if not rows:
        is_expected = any(test.section == name for test in KNOWN.values())
        return [Heading(name), Paragraph('Nothing was run: see below.')] if is_expected else []
    header = ['test', 'metric', *(column.label for column in columns)]
    header += ['published', 'ceiling']
    lines: list[list[str | Cell]] = []
    for row in rows:
        for number, metric in enumerate(row.metrics):
            note = row.conditions_text if number == 0 else ''
            cells = [_cell(row, column, metric) for column in columns]
            lines.append([Cell(row.newest.title, note), metric, *cells, *_beside(row, metric)])
    blocks: list[Block] = [
        Heading(name),
        Table(header, lines, text=(0, 1, len(header) - 2, len(header) - 1)),
    ]
    if any(FEWER in cell.text for line in lines for cell in line if isinstance(cell, Cell)):
        blocks.append(Listing([f'{FEWER} fewer seeds than another checkpoint in the same test']))
    return blocks


def _cell(row: Row, column: Column, metric: str) -> Cell:
    results = row.results.get(column.network.identity, ())
    values = [r.metrics[metric] for r in results if r.metrics.get(metric) is not None]
    if not results:
        return Cell('-', '' if _is_without(row.test, column) else 'not run')
    if not values:
        is_known = any(metric in r.metrics for r in results)
        return Cell('-', 'not finite' if is_known else '')
    mean = float(np.mean(values))
    deviation = float(np.std(values, ddof=1)) if len(values) > 1 else None
    text, spread = mean_text(mean, deviation)
    text = f'{text} ± {spread}' if spread else text
    if len(results) < max(map(len, row.results.values())):
        text += f' {FEWER}'
    remarks = dict.fromkeys(r.remark for r in results if r.remark)
    return Cell(text, ', '.join([f'n = {len(values)}', *remarks]))


def _is_without(test: KnownTest, column: Column) -> bool:
    """Check if there is nothing to test: random weights have no classifier."""
    return column.is_random and not test.for_random


def _beside(row: Row, metric: str) -> list[Cell]:
    """Published figures, and the ceiling, next to results that they go with."""
    tables = [each for each in row.test.published if each.metric == metric]
    results = [each[0] for each in row.results.values()]
    fitting = [t for t in tables if any(not t.mismatch(result) for result in results)]
    if not fitting:
        return [Cell('-', tables[0].mismatch(results[0]) if tables else ''), Cell('-')]
    rows = fitting[0].rows
    others = {name: value for name, value in rows.items() if not name.startswith(CEILING)}
    ceiling = {name: value for name, value in rows.items() if name.startswith(CEILING)}
    own = max((n for n in others if n.startswith('VITO')), key=others.get, default=None)
    best = max(others, key=others.get, default=None)
    said = [] if own is None else [f'{own}: {others[own]:.1f}']
    if best not in (own, None):
        said.append(f'highest, {best}: {others[best]:.1f}')
    top = max(ceiling, key=ceiling.get, default='')
    return [
        Cell('; '.join(said) or '-'),
        Cell(f'{top}: {ceiling[top]:.1f}' if top else '-'),
    ]


def _not_run(rows: Sequence[Row], columns: Sequence[Column], folder: Path) -> list[Block]:
    """Tests without a value for some checkpoint, and the commands that would fill them in."""
    lines, commands = [], []
    ran = {(row.newest.tool, row.newest.test) for row in rows}
    missing = [
        (row.newest.tool, row.test, row.newest.title, row.conditions_text, row.newest.command, row)
        for row in rows
    ]
    for (tool, name), test in KNOWN.items():
        if (tool, name) not in ran:
            words = (*test.command.split(), '--evaluation', str(folder))
            missing.append((tool, test, test.title, '-', words, None))
    for tool, test, title, said, words, row in missing:
        left = [
            column
            for column in columns
            if not (row and column.network.identity in row.results)
            if not _is_without(test, column)
        ]
        if left:
            labels = ', '.join(column.label for column in left)
            lines.append([test.section, title, said, labels])
            commands += _commands(words, left, columns, tool == 'probe')
    if not lines:
        return []
    return [
        Heading('What was not run'),
        Table(['section', 'test', 'data', 'checkpoints'], lines, text=(0, 1, 2, 3)),
        Paragraph('The commands that fill it in; what is below /data or data stands for yours:'),
        Code('\n'.join(commands)),
    ]


def _commands(
    words: Sequence[str], left: Sequence[Column], every: Sequence[Column], is_probe: bool
) -> list[str]:
    """Commands that test some networks: those that the command line names alike in one."""
    groups: dict[tuple[str, ...], list[Column]] = {}
    # Random weights next to a file are of its network.
    plain = {c.network.name for c in left if not (c.is_random or c.network.options)}
    for column in left:
        is_told = not is_probe or (column.is_random and column.network.name in plain)
        groups.setdefault(() if is_told else column.network.options, []).append(column)
    found = []
    for options, group in groups.items():
        names = [column.word for column in group]
        if is_probe and not options and all(column.is_random for column in group):
            # Random weights are those of the network of a file.
            alike = {column.network.name for column in group}
            names += [c.word for c in every if not c.is_random and c.network.name in alike][:1]
        replaced = [n for word in words for n in (names if word == 'CHECKPOINTS' else [word])]
        text = shlex.join([*replaced, *options])
        found.append(f'python {text}' if words[0].endswith('.py') else text)
    return found


def _published_tables() -> list[Block]:
    """All published figures, by test."""
    groups: dict[str, list[tuple[KnownTest, Published]]] = {}
    for test in KNOWN.values():
        for table in test.published:
            groups.setdefault(table.title, []).append((test, table))
    blocks: list[Block] = [
        Heading('Published figures'),
        Paragraph('None of these was measured here, and no deviations were published.'),
    ]
    for title, group in groups.items():
        methods = dict.fromkeys(name for _, table in group for name in table.rows)
        header = ['method', *(f'{table.data}, {table.metric}' for _, table in group)]
        lines = [
            [name, *(f'{t.rows[name]:.1f}' if name in t.rows else '-' for _, t in group)]
            for name in methods
        ]
        sources = dict.fromkeys(table.source for _, table in group)
        blocks += [Heading(title, 3), Paragraph(f'{"; ".join(sources)}.'), Table(header, lines)]
    return blocks


def _costs(rows: Sequence[Row]) -> list[Block]:
    """Seconds that the tests took."""
    lines = []
    for row in rows:
        by_machine: dict[str, list[float]] = {}
        for result in (r for each in row.results.values() for r in each):
            machine = fact_text(result.conditions.get('machine')) or 'not recorded'
            by_machine.setdefault(machine, []).append(result.seconds)
        for machine, seconds in by_machine.items():
            said = [row.newest.title, row.conditions_text, machine, str(len(seconds))]
            lines.append([*said, time_text(float(np.median(seconds))), time_text(sum(seconds))])
    header = ['test', 'data', 'machine', 'results', 'median of one', 'all, added']
    return [Heading('What it took'), Table(header, lines, text=(0, 1, 2))] if lines else []


def _conditions(results: Sequence[Result]) -> list[Block]:
    lines = []
    for key, title in FACTS.items():
        counts: dict[str, int] = {}
        for result in results:
            text = fact_text(result.conditions.get(key)) or 'not recorded'
            counts[text] = counts.get(text, 0) + 1
        for text, count in counts.items():
            where = f' of {count_text(count, "result")}' if len(counts) > 1 else ''
            lines.append(f'{title}{where}: {text}')
    return [Heading('Conditions'), Listing(lines)] if lines else []


def _csv(rows: Sequence[Row], columns: Sequence[Column]) -> str:
    """Format every figure of every seed, with all digits."""
    lines: list[list[object]] = [
        [
            *('section', 'test', 'data', 'conditions', 'metric', 'checkpoint', 'network'),
            *('sha256', 'seed', 'value', 'seconds', 'remark', 'machine'),
        ]
    ]
    for row in rows:
        for column in columns:
            for result in row.results.get(column.network.identity, ()):
                for metric, value in result.metrics.items():
                    lines.append(
                        [
                            *(row.test.section, result.test, result.data.name),
                            *(row.conditions_text, metric, column.label, column.network.name),
                            *(result.network.sha256, result.seed, '' if value is None else value),
                            *(round(result.seconds, 3), result.remark),
                            fact_text(result.conditions.get('machine')),
                        ]
                    )
    return to_csv(lines)


def _setting_text(name: str, value: object) -> str:
    listed = isinstance(value, (list, tuple))
    text = ' '.join(map(setting_text, value)) if listed else setting_text(value)
    return f'{name.replace("_", " ")} {text}'
