"""Stages that need no video, for tests of all stages. As a script: one, to be killed."""

import os
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from vito_mm.curation.running import Running, import_table, run_stage
from vito_mm.curation.stage import Stage
from vito_mm.curation.tables import Row, read_kept
from vito_mm.videos.manifest import write_manifest


@dataclass
class Double(Stage):
    """Doubles numbers; odd ones are dropped, some end their process, fail or take too long."""

    factor: int = 2
    pause: float = 0.0
    name: ClassVar[str] = 'double'
    needs: ClassVar[tuple[str, ...]] = ('path', 'number')
    time_limit: ClassVar[float] = 1.0

    def identity(self) -> dict:
        return dict(factor=self.factor)

    def prepare(self, row: Row) -> int:
        time.sleep(self.pause)
        if row.get('what') == 'dies':
            os._exit(3)
        if row.get('what') == 'fails':
            raise ValueError('no  such\nthing')
        if row.get('what') == 'hangs':
            time.sleep(60)
        return row['number'] * self.factor

    def finish(self, row: Row, prepared: int) -> Row:
        row = {**row, 'double': prepared}
        return {**row, 'dropped': f'odd: {row["number"]}'} if row['number'] % 2 else row


@dataclass
class AboveMean(Stage):
    """Keeps numbers above the mean of the whole table; takes whole shards."""

    pause: float = 0.0
    mean: float | None = None
    name: ClassVar[str] = 'above_mean'
    needs: ClassVar[tuple[str, ...]] = ('path', 'number')
    by_shard: ClassVar[bool] = True

    def identity(self) -> dict:
        return {}

    def survey(self, shards, workers: int) -> None:
        numbers = [row['number'] for shard in shards for row in read_kept(shard.source)]
        self.mean = sum(numbers) / len(numbers)

    def finish(self, row: Row, prepared: tuple[int, int]) -> Row:
        time.sleep(self.pause)
        return row if row['number'] > self.mean else {**row, 'dropped': 'small'}


STAGES = {stage.name: stage for stage in (Double, AboveMean)}


def make_table(folder: Path, running: Running, count: int = 40, **odd: str) -> Path:
    """A table of numbers; ``odd`` tells what some of them do, by ``x`` and the number."""
    rows = [dict(path=f'/{i}.mp4', number=i, what=odd.get(f'x{i}', '')) for i in range(count)]
    folder.mkdir(parents=True, exist_ok=True)
    write_manifest(folder / 'numbers.jsonl', rows)
    import_table(folder / 'numbers.jsonl', folder / 'table', running, 7)
    return folder / 'table'


def run_stage_of(root: Path, name: str, pause: float, engine: str) -> None:
    """Run a stage on a table of numbers."""
    running = Running(engine=engine, workers=2 if engine == 'local' else 1)
    print(run_stage(STAGES[name](pause=pause), make_table(root, running), root / name, running))


if __name__ == '__main__':
    run_stage_of(Path(sys.argv[1]), sys.argv[2], float(sys.argv[3]), sys.argv[4])
