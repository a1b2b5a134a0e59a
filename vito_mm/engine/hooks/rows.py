"""Rows of the data sets that a run trains on."""

from collections.abc import Mapping, Sequence
from typing import Any

from vito_mm.datasets import VideoDataset


class Rows(Sequence):
    """Rows of several data sets, each parsed when it is asked for."""

    def __init__(self, datasets: Sequence[VideoDataset]) -> None:
        self.datasets = datasets

    def __len__(self) -> int:
        return sum(map(len, self.datasets))

    def __getitem__(self, index: int) -> Mapping[str, Any]:
        for dataset in self.datasets:
            if index < len(dataset):
                row = dataset.get_data_info(index)
                return {**row, 'path': row['video_path']}
            index -= len(dataset)
        raise IndexError(index)
