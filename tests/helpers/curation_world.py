"""MiniScenes as a collection of web videos: titles of all kinds, broken files, and a classifier."""

import importlib.util
import shutil
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
import torch
from mmengine.config import Config
from mmengine.registry import init_default_scope
from mmpretrain.registry import MODELS
from torch import Tensor, nn

from tests.conftest import REPO, write_video
from tests.helpers.faulty_videos import UNREADABLE
from tests.helpers.titled_videos import write_taxonomy, write_titled_table
from vito_mm.curation.tables import read_table
from vito_mm.miniscenes.classes import CLASSES
from vito_mm.miniscenes.make import make_miniscenes
from vito_mm.videos.manifest import write_manifest

SIDE = 64
NUM_VIDEOS = 64

CLASSIFIER = f"""
model = dict(
    type='ImageClassifier',
    backbone=dict(type='ResNet', depth=18, stem_channels=16, base_channels=16),
    neck=dict(type='GlobalAveragePooling'),
    head=dict(type='LinearClsHead', num_classes={len(CLASSES)}, in_channels=128),
)
data_preprocessor = dict(
    num_classes={len(CLASSES)}, mean=[127.5] * 3, std=[60.0] * 3, to_rgb=True
)
test_dataloader = dict(
    dataset=dict(
        pipeline=[
            dict(type='LoadImageFromFile'),
            dict(type='ResizeEdge', scale={SIDE}, edge='short'),
            dict(type='CenterCrop', crop_size={SIDE}),
            dict(type='PackInputs'),
        ]
    )
)
default_scope = 'mmpretrain'
"""


class World:
    """A folder with ``videos.jsonl``, ``classes.json``, ``classifier.py`` and ``classifier.pth``.

    Args:
        root: Folder to make it in.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        make_miniscenes(
            root / 'scenes',
            num_videos=NUM_VIDEOS,
            num_probe_images=400,
            tasks=('videos', 'probe'),
            progress=False,
        )
        write_taxonomy(root / 'classes.json')
        write_titled_table(root / 'scenes', root / 'good.jsonl', seed=0)
        self.rows = list(read_table(root / 'good.jsonl'))
        self.good = [row['path'] for row in self.rows]
        for name, break_file in UNREADABLE.items():
            break_file(root / name)
            self.rows.append(dict(path=str(root / name), title='Striped disc, lost'))
        self.broken = [row['path'] for row in self.rows[NUM_VIDEOS:]]
        write_video(root / 'short.mp4', num_frames=20)
        self.copy = str(root / 'copy.mp4')
        shutil.copy(self.good[2], self.copy)
        self.rows += [
            dict(path=str(root / 'short.mp4'), title='dotted square'),
            dict(self.rows[2], path=self.copy),
        ]
        self.table = root / 'videos.jsonl'
        write_manifest(self.table, self.rows)
        self.truth = {row['path']: row.get('true_label') for row in self.rows}
        self.config = root / 'classifier.py'
        self.config.write_text(CLASSIFIER)
        self.checkpoint = root / 'classifier.pth'
        self.accuracy = self._train()

    def _images(self, part: str) -> tuple[Tensor, Tensor]:
        images, labels = [], []
        for label, scene_class in enumerate(CLASSES):
            for file in sorted((self.root / 'scenes/probe' / part / scene_class.name).iterdir()):
                picture = cv2.imread(str(file))[..., ::-1]
                images.append(cv2.resize(picture, (SIDE, SIDE), interpolation=cv2.INTER_AREA))
                labels.append(label)
        batch = torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2).float()
        return (batch - 127.5) / 60, torch.tensor(labels)

    def _train(self, steps: int = 200, batch_size: int = 32) -> float:
        """Train the classifier on single-object stills; returns the accuracy on others."""
        init_default_scope('mmpretrain')
        torch.manual_seed(0)
        model = MODELS.build(Config.fromfile(self.config).model)
        optimizer = torch.optim.AdamW(model.parameters(), lr=4e-3, weight_decay=0.02)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 4e-3, total_steps=steps)
        images, labels = self._images('train')
        for _ in range(steps):
            chosen = torch.randint(len(images), (batch_size,))
            turned = torch.rand(batch_size, 1, 1, 1) < 0.5
            batch = images[chosen]
            batch = torch.where(turned, batch.flip(3), batch)
            batch = torch.roll(batch, torch.randint(-8, 9, (2,)).tolist(), (2, 3))
            batch = batch + 0.3 * torch.randn(batch_size, 3, 1, 1)
            scores = model.head(model.extract_feat(batch))
            loss = nn.functional.cross_entropy(scores, labels[chosen])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
        model.eval()
        torch.save(dict(state_dict=model.state_dict()), self.checkpoint)
        images, labels = self._images('val')
        with torch.no_grad():
            found = model.head(model.extract_feat(images)).argmax(1)
        return (found == labels).float().mean().item()

    def words(self, work_dir: Path, *more: object, table: Path | None = None) -> list[str]:
        """The command line that a user types after the tool, with small shards."""
        words = [
            *(table or self.table, work_dir, '--taxonomy', self.root / 'classes.json'),
            *('--min-seconds', 3, '--checkpoint', self.checkpoint),
            *(() if '--by-embedding' in more else ('--classifier', self.config)),
            *('--rows-per-shard', 8, '--workers', 2, *more),
        ]
        return [str(word) for word in words]

    def curate_here(self, work_dir: Path, *more: object, table: Path | None = None) -> int:
        """Run the command within this process, which is quicker; returns its status."""
        return call_tool(self.words(work_dir, *more, table=table))


def call_tool(words: Sequence[str]) -> int:
    """Run ``tools/curate_videonet.py`` within this process; returns its status."""
    file = REPO / 'tools/curate_videonet.py'
    spec = importlib.util.spec_from_file_location('curate_videonet', file)
    tool = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tool)
    return tool.main(words)


def tables_of(work_dir: Path, stages: Sequence[str]) -> dict[str, list[dict]]:
    """Rows of the tables of some stages."""
    return {stage: list(read_table(work_dir / stage)) for stage in stages}
