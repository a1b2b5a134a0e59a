"""BYOL's augmentations on a batch, each image by its own numbers."""

import numpy as np
import torch
from torch import Tensor

from vito_mm.datasets.transforms.byol_augmentation import JITTER_ORDERS, ViewAugmentation

_GREY = (0.299, 0.587, 0.114)  # of RGB


@torch.no_grad()
def augment_batch(images: Tensor, drawn: np.ndarray, is_rgb: bool = True) -> Tensor:
    """Augment each image as it was drawn for it, as torchvision's transforms do with floats.

    Numbers of the draws stay on the host, so the device is never waited for.

    Args:
        images (Tensor): Values within [0, 255], any type, shape (N, 3, H, W).
        drawn (np.ndarray): A :class:`~vito_mm.datasets.ViewAugmentation` per row, shape (N, 10).
        is_rgb (bool): Order of the channels, otherwise BGR. Defaults to True.

    Returns:
        Tensor: Float32, values within [0, 255], shape (N, 3, H, W).
    """
    columns = ViewAugmentation(*np.asarray(drawn, np.float32).T)
    device = images.device
    weights = torch.tensor(_GREY if is_rgb else _GREY[::-1], device=device).view(3, 1, 1)
    x = images.float() / 255
    flipped = _rows(columns.flip, device)
    if flipped is not None:
        x[flipped] = x[flipped].flip(-1)

    orders = np.array(JITTER_ORDERS)[columns.order.astype(int)]
    for place in range(4):
        x = _blend(x, columns, orders[:, place], weights)
        shifted = (orders[:, place] == 'hue') & (columns.hue != 0)
        rows = _rows(shifted, device)
        if rows is not None:
            turns = _to(columns.hue[shifted], device).view(-1, 1, 1)
            x[rows] = _shift_hue(x[rows], turns, is_rgb)

    rows = _rows(columns.grayscale, device)
    if rows is not None:
        x[rows] = (x[rows] * weights).sum(1, keepdim=True).expand_as(x[rows])
    blurred = columns.sigma > 0
    rows = _rows(blurred, device)
    if rows is not None:
        sizes = columns.kernel_size[blurred]
        settings = _to(np.stack([columns.sigma[blurred], sizes]), device)
        x[rows] = _blur(x[rows], *settings, reach=int(sizes.max()) // 2)
    rows = _rows(columns.solarize, device)
    if rows is not None:
        x[rows] = torch.where(x[rows] < 0.5, x[rows], 1 - x[rows])
    return x * 255


def _to(values: np.ndarray, device: torch.device) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(values)).to(device, non_blocking=True)


def _rows(chosen: np.ndarray, device: torch.device) -> Tensor | None:
    """Indices of the chosen rows on the device; None if there are none."""
    rows = np.flatnonzero(chosen)
    return _to(rows, device) if len(rows) else None


def _blend(x: Tensor, columns: ViewAugmentation, change: np.ndarray, weights: Tensor) -> Tensor:
    """Brightness, contrast and saturation: blends of an image, its grey and its mean grey."""
    image, grey, mean = np.ones(len(x), np.float32), *np.zeros((2, len(x)), np.float32)
    for name, other in (('brightness', None), ('contrast', mean), ('saturation', grey)):
        chosen, factor = change == name, getattr(columns, name)
        image[chosen] = factor[chosen]
        if other is not None:
            other[chosen] = 1 - factor[chosen]
    if (image == 1).all():
        return x
    own, of_grey, of_mean = _to(np.stack([image, grey, mean]), x.device).view(3, -1, 1, 1, 1)
    greys = (x * weights).sum(1, keepdim=True)
    means = greys.mean((2, 3), keepdim=True)
    return (own * x + of_grey * greys + of_mean * means).clamp_(0, 1)


def _shift_hue(x: Tensor, turns: Tensor, is_rgb: bool) -> Tensor:
    """Turn the hue of HSV, without a trip through HSV's other two values.

    Value and chroma stay, so a channel is ``value - chroma * ramp(hue)``, with a ramp that is the
    same for all channels but for a shift by a third of a turn.
    """
    red, green, blue = x.unbind(1) if is_rgb else x.unbind(1)[::-1]
    value = x.amax(1)
    chroma = value - x.amin(1)
    safe = torch.where(chroma > 0, chroma, torch.ones_like(chroma))
    sixths = torch.where(
        value == red,
        (green - blue) / safe,
        torch.where(value == green, 2 + (blue - red) / safe, 4 + (red - green) / safe),
    )
    sixths = sixths + 6 * turns
    channels = []
    for shift in (5, 3, 1) if is_rgb else (1, 3, 5):
        place = (shift + sixths) % 6
        ramp = torch.minimum(place, 4 - place).clamp_(0, 1)
        channels.append(value - chroma * ramp)
    return torch.stack(channels, 1)


def _blur(x: Tensor, sigma: Tensor, kernel_size: Tensor, reach: int) -> Tensor:
    """Gaussian blur as products with one band matrix a side, mirrored at the border.

    Two matrix products take the same time as grouped convolutions on a CPU, and have no setup that
    grows with the number of kernels.
    """
    offsets = torch.arange(-reach, reach + 1, device=x.device)
    kernel = torch.exp(-0.5 * (offsets / sigma[:, None]) ** 2)
    kernel = kernel * (offsets.abs() <= kernel_size[:, None] // 2)
    kernel = kernel / kernel.sum(1, keepdim=True)
    rows, columns = (_band(kernel, offsets, size)[:, None] for size in x.shape[2:])
    return rows @ x @ columns.transpose(-1, -2)


def _band(kernel: Tensor, offsets: Tensor, size: int) -> Tensor:
    """Matrices (N, size, size) whose product with a signal is its blur."""
    source = torch.arange(size, device=kernel.device)[:, None] + offsets
    period = max(2 * (size - 1), 1)
    source = source % period
    source = torch.where(source >= size, period - source, source)
    shape = (len(kernel), *source.shape)
    band = kernel.new_zeros(len(kernel), size, size)
    return band.scatter_add_(2, source.expand(shape), kernel[:, None].expand(shape))
