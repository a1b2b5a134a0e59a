"""The report of a curation: videos kept and dropped by stage and class, as pages and CSV."""

import heapq
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from vito_mm.utils.hashing import hash64
from vito_mm.utils.provenance import conditions, conditions_text
from vito_mm.utils.report import (
    Block,
    Code,
    Heading,
    Listing,
    Paragraph,
    Picture,
    Table,
    to_csv,
    write_document,
)
from vito_mm.utils.text import first_few
from vito_mm.videos.manifest import PART, part_name

from .filters import is_classified
from .stage import Counts
from .stage_folder import read_record
from .tables import DROPPED, Row, read_table
from .thumbnails import draw_strip, draw_thumbnails

PASS_RATE = 0.24
"""Share of the retrieved videos that remained in the paper, section 3.3."""

PAPER = 'https://arxiv.org/abs/2210.06433'

_SAMPLES = 8  # of a class, kept and as many dropped
_SHOWN = 24  # classes with pictures
_LETTERS = 80  # of a title
_ORDER = ('retrieved', 'passed the classifier', 'in the end', 'not kept')


@dataclass
class _Group:
    """Videos of a class, or of a cluster."""

    counts: Counter = field(default_factory=Counter)
    kept: list[tuple[int, str, str, tuple]] = field(default_factory=list)
    dropped: list[tuple[int, str, str, tuple]] = field(default_factory=list)

    def sample(self, row: Row, text: str) -> None:
        """Remember some videos, chosen by a hash of their path."""
        heap = self.kept if row.get(DROPPED) is None else self.dropped
        name = part_name(row)
        part = tuple(row.get(key) for key in ('path', *PART))
        heapq.heappush(heap, (-hash64(name), name, text, part))
        if len(heap) > _SAMPLES:
            heapq.heappop(heap)


def write_report(
    work_dir: Path,
    stages: Sequence[str],
    classes: Sequence[str] = (),
    target: int | None = None,
    commands: Sequence[str] = (),
) -> Path:
    """Write ``report.html``, ``report.md``, ``report.csv`` and, for classes, ``classes.csv``.

    Videos are opened for the pictures of a few classes only; an unreadable one is an empty frame.

    Args:
        work_dir (Path): Folder of the curation.
        stages (Sequence[str]): Finished stages, in order.
        classes (Sequence[str]): Names of the classes. Defaults to none.
        target (int, optional): Number of videos wanted per class. Defaults to None.
        commands (Sequence[str]): Command lines of the user. Defaults to none.

    Returns:
        Path: The page.
    """
    records = {name: read_record(work_dir / name) for name in stages}
    counts = {
        name: Counts(each['kept'], Counter(each['dropped'])) for name, each in records.items()
    }
    groups = _groups(work_dir, stages)
    by_class = 'select_by_embedding' not in records
    left, total = counts[stages[-1]].kept, counts[stages[0]].total
    summary = f'{left:,} of {total:,} videos are left after {", ".join(stages)}.'
    blocks: list[Block] = [Paragraph(summary), *_stages(counts), *_reasons(counts)]
    files = {'report.csv': to_csv(_reason_rows(counts))}
    if groups:
        names = classes if by_class else [f'cluster {i}' for i in range(max(groups) + 1)]
        blocks += _classes(groups, names, target, by_class)
        blocks += _pictures(groups, names, by_class)
        files['classes.csv'] = to_csv(_class_rows(groups, names, target))
    blocks += [Heading('Conditions'), Listing(conditions_text(conditions()))]
    blocks += [Code('\n'.join(commands))] if commands else []
    for name, record in records.items():
        settings = ', '.join(f'{key} = {value!r}' for key, value in record['identity'].items())
        blocks.append(Code(f'{name}: {settings}'))
    return write_document(work_dir, 'Curation of videos', blocks, others=files)


def _stages(counts: dict[str, Counts]) -> list[Block]:
    rows = []
    first = next(iter(counts.values()))
    for name, each in counts.items():
        numbers = [f'{number:,}' for number in (each.total, each.kept, each.dropped.total())]
        shares = [_percent(each.kept, total) for total in (each.total, first.total)]
        rows.append([name, *numbers, *shares])
    header = ['stage', 'videos', 'kept', 'dropped', 'kept of these', 'kept of all']
    blocks: list[Block] = [Heading('Stages'), Table(header, rows)]
    if 'retrieve' in counts and 'classify' in counts:
        retrieved = counts['retrieve'].kept
        last = list(counts)[-1]
        blocks.append(
            Paragraph(
                f'{_percent(counts[last].kept, retrieved)} of the {retrieved:,} retrieved '
                f'videos are left after {last}. In the paper 1,180,042 were, {PASS_RATE:.0%} '
                f'({PAPER}, section 3.3).'
            )
        )
    return blocks


def _reasons(counts: dict[str, Counts]) -> list[Block]:
    rows = [
        [stage, reason, f'{count:,}', _percent(count, each.total)]
        for stage, each in counts.items()
        for reason, count in each.dropped.items()
    ]
    header = ['stage', 'reason', 'dropped', 'of its videos']
    return [Heading('Why videos were dropped'), Table(header, rows, text=(0, 1))] if rows else []


def _groups(work_dir: Path, stages: Sequence[str]) -> dict[int, _Group]:
    """Counts and samples by class, or by cluster of the reference."""
    groups: dict[int, _Group] = defaultdict(_Group)
    columns = ['path', *PART, 'title', 'classes', 'label', 'top1', 'cluster']
    columns += ['labels', 'label_frames', 'label_scores']
    by_class = 'embed' not in stages
    for stage in stages:
        if stage in ('probe', 'embed') or (stage == 'select' and not by_class):
            continue
        for row in read_table(work_dir / stage, [*columns, 'similarity', DROPPED]):
            is_kept = row.get(DROPPED) is None
            title = _short(row.get('title') or Path(row.get('path', '')).name)
            if stage == 'retrieve' and is_kept:
                for index in row['classes']:
                    groups[index].counts['retrieved'] += 1
            elif stage == 'classify' and is_kept:
                for index in row['labels']:
                    groups[index].counts['passed the classifier'] += 1
            elif stage == 'classify' and 'top1' in row:  # others may end the process again
                for index in row['classes']:
                    why = row[DROPPED].partition(': ')
                    groups[index].sample(row, f'{title} ({why[2] or why[0]})')
            elif stage == 'select' and is_kept and is_classified(row):  # the label is ours
                groups[row['label']].counts['in the end'] += 1
                groups[row['label']].sample(row, title)
            elif stage == 'select_by_embedding' and 'cluster' in row:
                group = groups[row['cluster']]
                group.counts['in the end' if is_kept else 'not kept'] += 1
                group.sample(row, f'{title} ({row.get("similarity", 0):.2f})')
    return dict(groups)


def _short(title: str) -> str:
    return title if len(title) <= _LETTERS else f'{title[: _LETTERS - 1]}…'


def _name(names: Sequence[str], index: int) -> str:
    return names[index] if index < len(names) else f'class {index}'


def _class_rows(
    groups: dict[int, _Group], names: Sequence[str], target: int | None
) -> Iterator[list]:
    seen = {name for group in groups.values() for name in group.counts}
    header = [name for name in _ORDER if name in seen]
    yield ['index', 'name', *header, *(['target'] if target else [])]
    for index in sorted(set(groups) | set(range(len(names)))):
        counts = groups[index].counts if index in groups else Counter()
        cells = [counts[name] for name in header]
        yield [index, _name(names, index), *cells, *([target] if target else [])]


def _classes(
    groups: dict[int, _Group], names: Sequence[str], target: int | None, by_class: bool
) -> list[Block]:
    rows = list(_class_rows(groups, names, target))
    header, rows = rows[0][1:], [row[1:] for row in rows[1:]]
    final = header.index('in the end') if 'in the end' in header else len(header) - 1
    if target:
        header = [*header, 'of target']
        rows = [[*row, _percent(row[final], target)] for row in rows]
    rows.sort(key=lambda row: (row[final], str(row[0])))
    empty = [str(row[0]) for row in rows if not row[final]]
    what = 'class' if by_class else 'cluster of the reference'
    blocks: list[Block] = [
        Heading(f'By {what}'),
        Paragraph(f'Fewest first. All of them are in classes.csv: {len(rows)}.'),
    ]
    if empty and by_class:
        blocks.append(Paragraph(f'{len(empty)} classes have no video: {first_few(empty, 20)}.'))
    # The page of a thousand classes need not list them all.
    listed = rows if len(rows) <= 60 else rows[:30] + rows[-30:]
    if len(listed) < len(rows):
        blocks.append(Paragraph('The 30 with fewest and the 30 with most:'))
    cells = [[f'{c:,}' if isinstance(c, int) else str(c) for c in row] for row in listed]
    return [*blocks, Table(header, cells)]


def _pictures(groups: dict[int, _Group], names: Sequence[str], by_class: bool) -> list[Block]:
    """Strips of kept and dropped videos of some classes, from those that lost most to least."""

    def share(index: int) -> float:
        counts = groups[index].counts
        before = counts['retrieved'] or counts['in the end'] + counts['not kept']
        return counts['in the end'] / max(1, before)

    with_videos = [index for index, group in groups.items() if group.kept or group.dropped]
    ordered = sorted(with_videos, key=lambda index: (share(index), index))
    if len(ordered) > _SHOWN:
        step = (len(ordered) - 1) / (_SHOWN - 1)
        ordered = [ordered[round(i * step)] for i in range(_SHOWN)]
    what = 'classes' if by_class else 'clusters'
    blocks: list[Block] = [
        Heading('Samples'),
        Paragraph(
            f'{len(ordered)} of {len(with_videos)} {what}, evenly spaced from that which lost most '
            f'of its videos to that which lost least; of each up to {_SAMPLES} kept and {_SAMPLES} '
            'dropped videos, chosen by a hash of their path. An empty frame is a video that can no '
            'longer be read.'
        ),
    ]
    thumbnails = draw_thumbnails(
        {
            name: dict(zip(('path', *PART), part, strict=True))
            for i in ordered
            for _, name, _, part in (*groups[i].kept, *groups[i].dropped)
        }
    )
    for index in ordered:
        blocks.append(Heading(_name(names, index), 3))
        for words, items in (('Kept', groups[index].kept), ('Dropped', groups[index].dropped)):
            if items := sorted(items, reverse=True):
                strip = draw_strip([thumbnails[name] for _, name, _, _ in items])
                texts = '; '.join(text for _, _, text, _ in items)
                blocks.append(Picture(strip, f'{words}: {texts}'))
    return blocks if len(blocks) > 2 else []


def _reason_rows(counts: dict[str, Counts]) -> Iterator[list]:
    yield ['stage', 'verdict', 'reason', 'videos']
    for stage, each in counts.items():
        yield [stage, 'kept', '', each.kept]
        for reason, count in each.dropped.items():
            yield [stage, 'dropped', reason, count]


def _percent(part: int, total: int) -> str:
    return f'{part / total:.1%}' if total else '-'
