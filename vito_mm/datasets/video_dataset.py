"""A data set of video files, or of images as videos of one frame."""

import hashlib
import os
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from mmengine.dataset import BaseDataset, force_full_init

from vito_mm.datasets.clip_sampler import random_state_of
from vito_mm.datasets.in_flight_file import InFlightFiles
from vito_mm.datasets.transforms.augment_views import named_stages
from vito_mm.registry import DATASETS
from vito_mm.utils.hashing import hash64
from vito_mm.utils.remote_files import is_address
from vito_mm.videos import (
    VIDEO_EXTENSIONS,
    Manifest,
    VideoReadError,
    find_videos,
    part_name,
    read_manifest,
)
from vito_mm.videos.names import endings_of
from vito_mm.videos.tars import split_member

_MADE_HERE = ('gt_label', 'gt_score', 'mask', 'augmentations', 'video_id')
"""Names that mean something to what packs samples, whatever a table has under them."""


@DATASETS.register_module()
class VideoDataset(BaseDataset):
    """Videos from a folder or a manifest, one clip of each whenever it is drawn.

    A video that cannot be decoded, or a row that cannot be read, is replaced by another, drawn at
    random. Skipped videos travel with the sample as ``skipped_videos`` (list of (path,
    reason)), so that the training process can count and log it
    (:class:`vito_mm.engine.SkippedVideosHook`).

    The table of videos is not copied: see :class:`vito_mm.videos.Manifest`.

    Args:
        data_root (str): Folder of videos, searched with its sub-folders if there is no
            ``ann_file``. Otherwise the folder from which relative paths start, unless it is empty
            or does not hold the first video: then they start from the folder of the manifest.
            Defaults to ''.
        ann_file (str): Manifest, JSON lines, CSV or Parquet, see :mod:`vito_mm.videos.manifest`.
            Relative to ``data_root`` unless found as it is. Its rows with the verdict "bad" are
            skipped. Defaults to ''.
        pipeline (Sequence[dict | Callable] | dict[str, dict | None]): Transforms, a list or a dict
            of named stages in order. MMEngine's configs merge dicts but replace lists, so a config
            that inherits a dict states only what it changes; a stage set to None is skipped. The
            first transform gets what :meth:`get_data_info` returns. Defaults to ().
        extensions (str | Sequence[str]): File name endings that are taken from a folder. With
            ``IMAGE_EXTENSIONS`` it is a data set of images, each a video of one frame; ``'.tar'``
            are archives of frames. Defaults to ``VIDEO_EXTENSIONS``.
        max_attempts (int): How many videos are tried for one sample before the data set is declared
            unreadable. Defaults to 16.
        **kwargs: Other keywords of :class:`mmengine.dataset.BaseDataset`, but ``data_prefix``,
            ``filter_cfg`` and ``serialize_data``, which mean nothing here.

    Raises:
        FileNotFoundError: If the folder or the manifest does not exist or has no video.
        ValueError: If neither ``data_root`` nor ``ann_file`` is given, one of them is no text, or
            the manifest is none.
    """

    def __init__(
        self,
        data_root: str = '',
        ann_file: str = '',
        pipeline: Sequence[dict | Callable] | dict[str, dict | None] = (),
        extensions: str | Sequence[str] = VIDEO_EXTENSIONS,
        max_attempts: int = 16,
        **kwargs: Any,
    ) -> None:
        data_root, ann_file = _place('data_root', data_root), _place('ann_file', ann_file)
        if not data_root and not ann_file:
            raise ValueError('VideoDataset needs data_root (a folder of videos) or ann_file')
        if max_attempts < 1:
            raise ValueError(f'max_attempts must be at least 1, got {max_attempts}')
        self.max_attempts = max_attempts
        self.extensions = endings_of(extensions)
        self.in_flight = InFlightFiles()
        self.blocklist: set[str] = set()
        """Files that are not read any more, because they ended the workers that read them."""
        super().__init__(
            ann_file=ann_file,
            data_root=data_root,
            data_prefix={},
            filter_cfg=None,
            # MMEngine serializes rows to share them between workers; a manifest is shared as it is.
            serialize_data=False,
            pipeline=named_stages(pipeline),
            **kwargs,
        )

    def _join_prefix(self) -> None:
        """Keep ``ann_file`` as the user gave it if that exists: it need not lie in the root."""
        if self.ann_file and not os.path.exists(self.ann_file):
            super()._join_prefix()

    def load_data_list(self) -> Manifest:
        """Read the manifest or search the folder: one row per video."""
        if self.ann_file:
            table = read_manifest(self.ann_file, self.data_root or None)
            is_folder = self.data_root and not is_address(self.data_root)
            if is_folder and not _first_exists(table):
                nearby = table.with_root(os.path.dirname(self.ann_file))
                table = nearby if _first_exists(nearby) else table
            return table
        rows = find_videos(self.data_root, self.extensions)
        return Manifest.from_rows(rows, source=self.data_root)

    def _get_unserialized_subset(self, indices: int | Sequence[int]) -> Manifest:
        """The first (or, of a negative number, the last) rows, or those of a list of indices."""
        if isinstance(indices, int):
            indices = slice(indices) if indices >= 0 else slice(indices, None)
        return self.data_list[indices]

    @force_full_init
    def get_data_info(self, idx: int) -> dict:
        """Row of a video.

        Returns:
            dict: The row with ``path`` under the name ``video_path``, a ``label`` that is an
            integer as ``gt_label``, and ``sample_idx``. ``video_id`` is an integer that rows of the
            same file have in common, whatever links lead there.

        Raises:
            VideoReadError: If the row cannot be read.
        """
        row = super().get_data_info(idx)
        for name in _MADE_HERE:
            row.pop(name, None)
        row['video_path'] = row.pop('path')
        row['video_id'] = hash64(os.path.realpath(row['video_path'])) >> 1
        if type(row.get('label')) is int:
            row['gt_label'] = row.pop('label')
        return row

    @force_full_init
    def count_files(self) -> int:
        """Count the different paths of the rows; fewer than rows if some are of the same file."""
        return self.data_list.count_files()

    @force_full_init
    def fingerprint(self) -> str:
        """SHA-256, in hexadecimal digits, of the manifest file, or of the paths in a folder."""
        if self.ann_file:
            return self.data_list.fingerprint()
        names = (row['path'].removeprefix(self.data_root) for row in self.data_list)
        inside = '\n'.join(f'/{name.lstrip("/")}' for name in names)  # alike of 'D' and 'D/'
        return hashlib.sha256(inside.encode('utf-8', 'surrogateescape')).hexdigest()

    @force_full_init
    def __getitem__(self, idx: int) -> dict:
        """Run the pipeline on a video, or on another if it cannot be read.

        An index that is a :class:`~vito_mm.datasets.Draw` also decides all that is random: the
        frames, the augmentations and which video stands in for a bad one.

        Raises:
            RuntimeError: If ``max_attempts`` videos in a row cannot be read; lists the reasons.
        """
        with random_state_of(idx):
            return self._first_readable(idx)

    def _first_readable(self, idx: int) -> dict:
        skipped: list[tuple[str, str]] = []
        for _ in range(self.max_attempts):
            name = None
            try:
                row = self.get_data_info(idx)
                name = part_name(row)
                row['skipped_videos'] = skipped
                return self._read(row)
            except VideoReadError as error:
                skipped.append((name or error.path, error.reason))
                idx = self._rand_another()
        reasons = '\n'.join(f'  {path}: {reason}' for path, reason in dict(skipped).items())
        raise RuntimeError(
            f'{self.max_attempts} videos drawn in a row from {self.ann_file or self.data_root!r} '
            f'({len(self)} videos) cannot be read:\n{reasons}\n'
            'Check the paths in the manifest and that the files are whole videos.'
        )

    def _read(self, row: dict) -> dict:
        path = row['video_path']
        if path in self.blocklist:
            raise VideoReadError(path, 'ends the process that reads it')
        self.in_flight.write(path)
        try:
            return self.pipeline(row)
        finally:
            self.in_flight.write('')


def video_datasets(dataset: Any) -> Iterator[VideoDataset]:
    """Find the data sets of videos within wrappers such as ``ConcatDataset``, and a bare one."""
    if isinstance(dataset, VideoDataset):
        yield dataset
    for inner in getattr(dataset, 'datasets', [getattr(dataset, 'dataset', None)]):
        if inner is not None:
            yield from video_datasets(inner)


def _place(key: str, value: Any) -> str:
    """A folder or file as a user names it, ``~`` for the home folder."""
    if not isinstance(value, str | os.PathLike):
        raise ValueError(
            f'{key} is {value!r}, no text. MMEngine takes a value of --cfg-options with a comma '
            f'for a list and digits for a number; tools/train.py does not. Elsewhere set {key} in '
            f'a config file, where it can be quoted: {key}="/data/My Videos,2"'
        )
    return os.path.expanduser(value)


def _first_exists(manifest: Manifest) -> bool:
    """True if the first row that can be read, and is of no address, names a file that is there."""
    for index in range(min(16, len(manifest))):
        try:
            path = manifest[index]['path']
        except VideoReadError:
            continue
        if not is_address(path):
            return os.path.exists(path) or split_member(path) is not None
    return False
