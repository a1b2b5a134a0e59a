"""What can be learned from MiniScenes in a budget: supervised, and with frozen random features.

Supervised training on frames of the videos must reach 0.85 on the probe images, and random
features must stay well below: the gap is what pre-training can show. All is rendered in memory.
"""

import argparse
import time

import cv2
import numpy as np
import torch
from torch import nn
from torchvision.models import resnet18

from vito_mm.miniscenes import PRESETS, get_preset
from vito_mm.miniscenes.statistics import ridge_accuracy
from vito_mm.miniscenes.stills import render_probe_image
from vito_mm.miniscenes.videos import render_video, video_label
from vito_mm.transfer.probes.knn import knn_top1

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


@torch.no_grad()
def features(model: nn.Module, images: torch.Tensor) -> np.ndarray:
    """Compute average-pooled features with batch statistics, as random networks need.

    Args:
        model: ResNet-18 whose ``fc`` is left out.
        images: (N, 3, H, W) float32.

    Returns:
        numpy.ndarray: (N, 512) float32.
    """
    head, model.fc = model.fc, nn.Identity()
    model.train()
    parts = [model(batch) for batch in images.split(200)]
    model.fc = head
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


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--preset', default='demo', choices=sorted(PRESETS))
    parser.add_argument('--seed', type=int, default=0)
    parser.add_argument('--num-videos', type=int, default=400)
    parser.add_argument('--num-probe-images', type=int, default=400)
    parser.add_argument('--side', type=int, default=64, help='input size in pixels')
    parser.add_argument('--steps', type=int, default=120)
    parser.add_argument('--batch-size', type=int, default=64)
    parser.add_argument('--lr', type=float, default=1e-3)
    args = parser.parse_args()
    preset = get_preset(args.preset)
    torch.manual_seed(args.seed)
    generator = torch.Generator().manual_seed(args.seed)

    times = np.arange(4) / 4 * preset.seconds
    frames, frame_labels = [], []
    for index in range(args.num_videos):
        frames += render_video(preset, args.seed, index, times)
        frame_labels += [video_label(index)] * len(times)
    videos, video_labels = to_batch(frames, args.side), torch.tensor(frame_labels)
    probe = {
        split: to_batch(
            [
                render_probe_image(preset, args.seed, split, index)
                for index in range(args.num_probe_images)
            ],
            args.side,
        )
        for split in ('train', 'val')
    }
    labels = np.arange(args.num_probe_images) % 8

    model = resnet18()
    print(f'preset {args.preset}, {args.num_videos} videos, {args.side} px, chance 0.125')
    train, val = (features(model, probe[split]) for split in ('train', 'val'))
    neighbours = knn_top1(*(torch.as_tensor(part) for part in (train, labels, val, labels))) / 100
    print(f'random features, kNN     {neighbours:.3f}')
    print(f'random features, ridge   {ridge_accuracy(train, labels, val, labels):.3f}')

    model.fc = nn.Linear(512, 8)
    optimizer = torch.optim.AdamW(model.parameters(), args.lr, weight_decay=0.05)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, args.lr, total_steps=args.steps)
    start = time.perf_counter()
    for _ in range(args.steps):
        chosen = torch.randint(len(videos), (args.batch_size,), generator=generator)
        model.train()
        loss = nn.functional.cross_entropy(
            model(augment(videos[chosen], generator)), video_labels[chosen]
        )
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    model.eval()
    with torch.no_grad():
        scores = torch.cat([model(batch) for batch in probe['val'].split(200)])
    accuracy = float((scores.argmax(1).numpy() == labels).mean())
    print(
        f'supervised on frames     {accuracy:.3f}   '
        f'({args.steps} steps of {args.batch_size}, {time.perf_counter() - start:.0f} s)'
    )


if __name__ == '__main__':
    main()
