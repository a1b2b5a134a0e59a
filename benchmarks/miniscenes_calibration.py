"""What can be learned from MiniScenes in a budget: supervised, and with frozen random features.

Supervised training on frames of the videos must reach 0.85 on the probe images, and random
features must stay well below: the gap is what pre-training can show. Beside it what tells a video
or a class without the object, and how fast videos are rendered. All is rendered in memory.
"""

import argparse
import os
import platform
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import numpy as np
import torch
from mmengine.config import Config
from mmengine.registry import MODELS, init_default_scope
from torch import nn
from torchvision.models import resnet18

from vito_mm.miniscenes import PRESETS, Preset, get_preset, make_miniscenes
from vito_mm.miniscenes.objects import NO_CLASS
from vito_mm.miniscenes.render import render_scene
from vito_mm.miniscenes.statistics import report_shortcuts, ridge_accuracy
from vito_mm.miniscenes.stills import Still, render_probe_still
from vito_mm.miniscenes.videos import draw_scenes, render_video
from vito_mm.probes.knn import knn_top1
from vito_mm.utils.quiet import quiet_logger

REPO = Path(__file__).resolve().parents[1]


@dataclass(frozen=True)
class Budget:
    """What the supervised network is given.

    Attributes:
        videos: Number of videos.
        frames: Number of frames of each, at equal distances.
        steps: Number of steps.
        side: Input size in pixels.
        network: Config of the study, relative to ``configs``, whose backbone is taken. Defaults to
            none: torchvision's ResNet-18.
    """

    videos: int
    frames: int
    steps: int
    side: int = 64
    network: str = ''


BUDGETS = {
    'demo': Budget(videos=400, frames=4, steps=120),
    'tiny': Budget(videos=80, frames=4, steps=40),
    'study_small': Budget(videos=800, frames=8, steps=300),
    'study': Budget(videos=800, frames=12, steps=600),
    'attention': Budget(
        videos=400, frames=12, steps=600, side=96, network='miniscenes/pretrain_r18_stride16.py'
    ),
}
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def to_batch(pictures: list[np.ndarray], side: int) -> torch.Tensor:
    """Resize and normalise pictures.

    Args:
        pictures: N pictures, (H, W, 3) uint8 RGB.
        side: Height and width to resize to, in pixels.

    Returns:
        torch.Tensor: (N, 3, side, side) float32.
    """
    resized = [cv2.resize(p, (side, side), interpolation=cv2.INTER_AREA) for p in pictures]
    batch = torch.from_numpy(np.stack(resized)).permute(0, 3, 1, 2).float() / 255
    return (batch - torch.tensor(MEAN)[:, None, None]) / torch.tensor(STD)[:, None, None]


class Network(nn.Module):
    """A classifier whose features can be pooled over a part of the picture.

    Args:
        budget: Its ``network``.
        num_classes: Number of classes.
    """

    def __init__(self, budget: Budget, num_classes: int) -> None:
        super().__init__()
        if budget.network:
            init_default_scope('mmpretrain')
            part = dict(Config.fromfile(REPO / 'configs' / budget.network).model.backbone)
            part |= dict(type='ResNet', out_indices=(3,), norm_cfg=dict(type='BN'))
            self.backbone = MODELS.build(part)
            with quiet_logger():
                self.backbone.init_weights()
        else:
            self.backbone = nn.Sequential(*list(resnet18().children())[:-2])
        with torch.no_grad():
            # In evaluation mode, which leaves the statistics as they are.
            channels = self.eval().maps(torch.zeros(2, 3, budget.side, budget.side)).shape[1]
        self.train()
        self.fc = nn.Linear(channels, num_classes)

    def maps(self, images: torch.Tensor) -> torch.Tensor:
        """Compute the last feature map, (N, C, H, W)."""
        found = self.backbone(images)
        return found[-1] if isinstance(found, tuple) else found

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Score the classes."""
        return self.fc(self.maps(images).mean(dim=(2, 3)))


@torch.no_grad()
def features(model: Network, images: torch.Tensor, masks: torch.Tensor | None = None) -> np.ndarray:
    """Compute average-pooled features with batch statistics, as random networks need.

    Args:
        model: The network.
        images: (N, 3, H, W) float32.
        masks: Share of the object in each pixel, (N, 1, H, W) float32, to average over the object
            alone. Defaults to None.

    Returns:
        numpy.ndarray: (N, C) float32.
    """
    mode = model.training
    model.train()
    parts = []
    for index, batch in enumerate(images.split(200)):
        maps = model.maps(batch)
        weights = torch.ones_like(maps[:, :1])
        if masks is not None:
            part = masks[200 * index : 200 * index + len(batch)]
            weights = nn.functional.interpolate(part, maps.shape[2:], mode='area')
        weights = weights / weights.sum(dim=(2, 3), keepdim=True)
        parts.append((weights * maps).sum(dim=(2, 3)))
    model.train(mode)
    return torch.cat(parts).numpy()


def augment(images: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Flip and move a batch, each image its own way.

    Args:
        images: (N, 3, H, W) float32.
        generator: Source of the choices.

    Returns:
        torch.Tensor: (N, 3, H, W) float32.
    """
    count = len(images)
    scale = 0.65 + 0.35 * torch.rand(count, 2, generator=generator)
    sign = torch.where(torch.rand(count, generator=generator) < 0.5, -1.0, 1.0)
    theta = torch.zeros(count, 2, 3)
    theta[:, 0, 0], theta[:, 1, 1] = sign * scale[:, 0], scale[:, 1]
    theta[:, :, 2] = (1 - scale) * (2 * torch.rand(count, 2, generator=generator) - 1)
    grid = nn.functional.affine_grid(theta, list(images.shape), align_corners=False)
    return nn.functional.grid_sample(images, grid, padding_mode='reflection', align_corners=False)


def frames_of(preset: Preset, seed: int, budget: Budget) -> tuple[list[np.ndarray], torch.Tensor]:
    """Render the frames to learn from.

    Args:
        preset: Sizes and ranges.
        seed: Seed of the world.
        budget: How many.

    Returns:
        tuple[list[numpy.ndarray], torch.Tensor]: The frames, (side, side, 3) uint8 RGB, and the
        class of the video of each, (N,) int64.
    """
    times = np.arange(budget.frames) / budget.frames * preset.seconds
    frames = [
        frame
        for index in range(budget.videos)
        for frame in render_video(preset, seed, index, times)
    ]
    labels = torch.tensor([preset.label_of(index) for index in range(budget.videos)])
    return frames, labels.repeat_interleave(budget.frames)


def generation_speed(name: str, seed: int, num_videos: int = 32) -> str:
    """Write videos to disk with a worker for each core, and say how fast.

    Args:
        name: Name of the preset.
        seed: Seed of the world.
        num_videos: Number of videos.

    Returns:
        str: Frames a second, rendered and encoded.
    """
    with tempfile.TemporaryDirectory() as folder:
        start = time.perf_counter()
        make_miniscenes(folder, name, seed, num_videos=num_videos, tasks=['videos'], progress=False)
        seconds = time.perf_counter() - start
    preset = get_preset(name)
    frames = num_videos * preset.num_frames
    return (
        f'{frames} frames of {preset.video_side} px written in {seconds:.1f} s: '
        f'{frames / seconds:.0f} frames/s'
    )


def scenery_of(preset: Preset, seed: int, num_videos: int) -> Iterator[np.ndarray]:
    """Render a frame of each video without its objects.

    Args:
        preset: Sizes and ranges, with a ``difficulty``.
        seed: Seed of the world.
        num_videos: Number of videos.

    Yields:
        numpy.ndarray: (side, side, 3) uint8 RGB.
    """
    side = preset.video_side
    for index in range(num_videos):
        (scene,) = draw_scenes(preset, seed, index, np.array([preset.seconds / 3]))
        things = tuple(layer for layer in scene.layers if layer[0].label == NO_CLASS)
        yield render_scene(replace(scene, layers=things), (side, side))


def train(
    images: torch.Tensor,
    labels: torch.Tensor,
    steps: int,
    batch_size: int,
    lr: float,
    generator: torch.Generator,
    model: nn.Module,
) -> None:
    """Train a network on labelled pictures, with AdamW and one cycle of the rate.

    Args:
        images: (N, 3, H, W) float32.
        labels: (N,) int64.
        steps: Number of steps.
        batch_size: Pictures a step.
        lr: Largest rate.
        generator: Source of the batches and their augmentation.
        model: Classifier of pictures, which is changed.
    """
    optimizer = torch.optim.AdamW(model.parameters(), lr, weight_decay=0.05)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, lr, total_steps=steps)
    model.train()
    for _ in range(steps):
        chosen = torch.randint(len(images), (batch_size,), generator=generator)
        scores = model(augment(images[chosen], generator))
        loss = nn.functional.cross_entropy(scores, labels[chosen])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()


def object_masks(stills: list[Still], side: int) -> torch.Tensor:
    """Resize the masks of the objects: share of each pixel, (N, 1, side, side) float32."""
    masks = torch.from_numpy(np.stack([still.masks[0] for still in stills]))[:, None].float()
    return nn.functional.interpolate(masks, (side, side), mode='area')


def report(
    model: Network,
    name: str,
    probe: dict[str, torch.Tensor],
    masks: dict[str, torch.Tensor],
    labels: np.ndarray,
) -> None:
    """Print accuracies of frozen features, pooled over the picture and over the object.

    The second is what attention could reach that knew where the object is.
    """
    train, *others = probe
    for where, known in (('', None), (', object alone', masks)):
        first = features(model, probe[train], known and known[train])
        for split in others:
            found = features(model, probe[split], known and known[split])
            tensors = (torch.as_tensor(part) for part in (first, labels, found, labels))
            print(f'{name} features{where}, kNN, {split:<17} {knn_top1(*tensors) / 100:.3f}')
            accuracy = ridge_accuracy(first, labels, found, labels)
            print(f'{name} features{where}, ridge, {split:<15} {accuracy:.3f}')


def parse_args() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--preset', default='demo', choices=sorted(PRESETS))
    parser.add_argument('--seed', type=int, default=0)
    parser.add_argument('--num-videos', type=int, help="default: the preset's budget")
    parser.add_argument('--frames', type=int, help='frames of a video, likewise')
    parser.add_argument('--steps', type=int, help='steps of the supervised network, likewise')
    parser.add_argument('--num-probe-images', type=int, default=400)
    parser.add_argument('--side', type=int, help='input size in pixels, likewise')
    parser.add_argument('--batch-size', type=int, default=64)
    parser.add_argument('--lr', type=float, default=1e-3)
    return parser.parse_args()


def main() -> None:
    """Print the table."""
    args = parse_args()
    preset = get_preset(args.preset)
    given = dict(videos=args.num_videos, frames=args.frames, steps=args.steps, side=args.side)
    budget = replace(
        BUDGETS[args.preset], **{name: value for name, value in given.items() if value is not None}
    )
    torch.manual_seed(args.seed)
    generator = torch.Generator().manual_seed(args.seed)
    print(
        f'Python {platform.python_version()}, torch {torch.__version__}, numpy {np.__version__}, '
        f'OpenCV {cv2.__version__}, {torch.get_num_threads()} of {os.cpu_count()} threads'
    )
    print(f'preset {args.preset}, seed {args.seed}, {budget.side} px, chance 0.125')

    print(generation_speed(args.preset, args.seed))

    frames, frame_labels = frames_of(preset, args.seed, budget)
    videos = to_batch(frames, budget.side)
    splits = ('train', 'val') if preset.difficulty is None else ('train', 'val', 'held_out')
    stills = {
        split: [
            render_probe_still(preset, args.seed, split, index)
            for index in range(args.num_probe_images)
        ]
        for split in splits
    }
    probe = {
        split: to_batch([still.image for still in parts], budget.side)
        for split, parts in stills.items()
    }
    masks = {split: object_masks(parts, budget.side) for split, parts in stills.items()}
    labels = np.arange(args.num_probe_images) % 8

    model = Network(budget, 8)
    report(model, 'random', probe, masks, labels)
    if preset.difficulty is not None:
        scenery = to_batch(list(scenery_of(preset, args.seed, budget.videos)), budget.side)
        scenery, owners = features(model, scenery), frame_labels[:: budget.frames].numpy()
        half = budget.videos // 2
        accuracy = ridge_accuracy(scenery[:half], owners[:half], scenery[half:], owners[half:])
        print(f'random features, ridge, objects removed {accuracy:.3f}')

    start = time.perf_counter()
    train(videos, frame_labels, budget.steps, args.batch_size, args.lr, generator, model)
    seconds = time.perf_counter() - start
    model.eval()
    for split in splits[1:]:
        with torch.no_grad():
            scores = torch.cat([model(batch) for batch in probe[split].split(200)])
        accuracy = float((scores.argmax(1).numpy() == labels).mean())
        print(f'supervised on frames, {split:<17} {accuracy:.3f}')
    report(model, 'supervised', probe, masks, labels)
    print(
        f'  ({budget.steps} steps of {args.batch_size} on {len(frames)} frames of {budget.videos} '
        f'videos, {seconds:.0f} s)'
    )
    print(report_shortcuts(preset, args.seed))


if __name__ == '__main__':
    main()
