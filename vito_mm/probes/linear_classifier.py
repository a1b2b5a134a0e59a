"""Linear classification of frozen features."""

import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from mmengine.logging import print_log
from torch import Tensor

from vito_mm.utils.atomic import written_aside

STRENGTHS = (1.0, 1e-1, 1e-2, 1e-3, 1e-4, 1e-5)
"""Strengths of the L2 penalty that are tried, strong ones first."""

_ROWS = 16384  # images whose features are on the device at a time
_HELD_OUT = 0.2  # share of each class that L2 strengths are compared on
_LARGE = 1e10  # features x classes beyond which half the digits must do


@dataclass(frozen=True)
class LinearClassifier:
    """A fitted linear classifier.

    ``mean`` and ``std`` (1 for a constant feature) have shape (D, ). ``weights`` are those of
    standardised features, with the bias as last column, shape (K, D + 1). ``gradient`` is the
    largest entry of the objective's gradient there.
    """

    mean: Tensor
    std: Tensor
    weights: Tensor
    gradient: float

    def logits(self, features: Tensor, rows: Tensor | None = None) -> Tensor:
        """Score the classes: (N, K) from features (N, D), or of some of their rows."""
        blocks = _blocks(features, rows, self.weights.device)
        parts = (_standardised(block, self.mean, self.std) for block in blocks)
        return torch.cat([_logits(part, self.weights) for part in parts])


@dataclass(frozen=True)
class LinearResult:
    """Accuracies of a linear classifier in percent.

    ``top5`` is None with five classes or fewer. ``strength`` is the L2 strength that was chosen,
    ``held_out`` the accuracy on the held-out part of ``train`` by strength, and ``classifier`` what
    was fitted to all of ``train``.
    """

    top1: float
    top5: float | None
    strength: float
    held_out: dict[float, float] = field(default_factory=dict)
    classifier: LinearClassifier | None = field(default=None, compare=False, repr=False)


def fit_linear_classifier(
    features: Tensor,
    labels: Tensor,
    num_classes: int,
    strength: float,
    start: Tensor | None = None,
    max_iter: int = 1000,
    rows: Tensor | None = None,
    device: torch.device | None = None,
) -> LinearClassifier:
    r"""Multinomial logistic regression on standardised features.

    Minimises mean cross-entropy + strength / 2 * sum of squared weights without the bias, by L-BFGS
    with a line search over all images at once, until no entry of the gradient is above 1e-6 (1e-5
    in float32). Features are standardised over the images; constant ones are left out. In float64,
    or float32 for problems as large as ImageNet.

    Args:
        features (Tensor): Shape (N, D), on any device or in a file that is mapped: a block at a
            time is copied to where the computation is.
        labels (Tensor): Class indices, shape (N, ).
        num_classes (int): Number of classes K.
        strength (float): Strength of the L2 penalty.
        start (Tensor, optional): Weights to start from, shape (K, D + 1). Defaults to None, zeros.
        max_iter (int): Most iterations; a warning if they do not reach the optimum. Defaults to
            1000.
        rows (Tensor, optional): Indices of the images to learn from, shape (n, ). Defaults to None,
            all.
        device (torch.device, optional): Where to compute. Defaults to None, where the features are.
    """
    device = features.device if device is None else device
    labels = (labels if rows is None else labels[rows.to(labels.device)]).to(device)
    count, size = len(labels), features.shape[1]
    dtype = torch.float64 if count * size * num_classes <= _LARGE else torch.float32
    mean, std = (value.to(dtype) for value in _moments(features, rows, device))
    if start is None:
        start = torch.zeros(num_classes, size + 1)
    weights = start.detach().to(device, dtype, copy=True).requires_grad_()
    # With float32 the line search would chase rounding errors beyond this. At 1e-5 the accuracy on
    # 2,000 held-out images (256 features, 20 classes) was 0.25 points off the optimum at most.
    tolerance = 1e-6 if dtype == torch.float64 else 1e-5
    optimizer = torch.optim.LBFGS(
        [weights],
        max_iter=max_iter,
        max_eval=2 * max_iter,
        tolerance_grad=tolerance,
        tolerance_change=0.0,
        history_size=20,
        line_search_fn='strong_wolfe',
    )

    def objective() -> Tensor:
        optimizer.zero_grad()
        loss = 0.5 * strength * weights[:, :-1].square().sum()
        loss.backward()
        total = loss.detach()
        blocks = _blocks(features, rows, device)
        for block, targets in zip(blocks, labels.split(_ROWS), strict=True):
            logits = _logits(_standardised(block, mean, std), weights)
            loss = F.cross_entropy(logits, targets, reduction='sum') / count
            loss.backward()
            total = total + loss.detach()
        return total

    optimizer.step(objective)
    objective()
    gradient = weights.grad.abs().max().item()
    if gradient > 10 * tolerance:
        print_log(
            f'linear classifier: L-BFGS stopped with a gradient of {gradient:.1e} after '
            f'{optimizer.state[weights]["n_iter"]} iterations at L2 strength {strength:g}; '
            'the accuracy may be a little off',
            'current',
            logging.WARNING,
        )
    return LinearClassifier(mean, std, weights.detach(), gradient)


def linear_accuracy(
    train_features: Tensor,
    train_labels: Tensor,
    test_features: Tensor,
    test_labels: Tensor,
    strengths: Sequence[float] = STRENGTHS,
    seed: int = 0,
    device: torch.device | None = None,
    folder: Path | None = None,
    advance: Callable[[], Any] = lambda: None,
) -> LinearResult:
    """Accuracy of a linear classifier whose L2 strength is chosen on a part of the training images.

    The part is a fifth of each class, at least one image, and at least one stays to learn from.
    Then it is fitted to all of them. Of two strengths with the same held-out accuracy, the one with
    the lower cross-entropy there is taken.

    Args:
        train_features (Tensor): Shape (N, D), see :func:`fit_linear_classifier`.
        train_labels (Tensor): Class indices, shape (N, ).
        test_features (Tensor): Shape (M, D), likewise.
        test_labels (Tensor): Class indices, shape (M, ).
        strengths (Sequence[float]): Strengths of the penalty. Defaults to :data:`STRENGTHS`.
        seed (int): Seed of the draw of the held-out images. Defaults to 0.
        device (torch.device, optional): Where to compute. Defaults to None, where the features are.
        folder (Path, optional): Folder for the weights of each strength: a later call with the same
            arguments goes on from there. Defaults to None.
        advance (Callable): Called after the fit of each strength, and after the last one. Defaults
            to nothing.
    """
    device = train_features.device if device is None else device
    train_features = _placed(train_features, device)
    num_classes = int(torch.cat([train_labels, test_labels]).max()) + 1
    kept, out = _split(train_labels, seed)
    strengths = sorted(strengths, reverse=True)
    accuracies: dict[float, float] = {}
    ranked, weights = [], None
    if len(out) and len(strengths) > 1:
        targets = train_labels[out.to(train_labels.device)].to(device)
        for strength in strengths:
            file = folder and folder / f'L2-{strength:g}.pth'
            if file and file.is_file():
                found = torch.load(file, map_location=device, weights_only=True)
            else:
                # A little less penalty moves the optimum a little: start where the last one was.
                classifier = fit_linear_classifier(
                    *(train_features, train_labels, num_classes, strength, weights),
                    rows=kept,
                    device=device,
                )
                logits = classifier.logits(train_features, out)
                found = dict(
                    weights=classifier.weights,
                    accuracy=top_accuracy(logits, targets, 1),
                    loss=F.cross_entropy(logits, targets).item(),
                )
                if file:
                    with written_aside(file) as unfinished:
                        torch.save(found, unfinished)
            weights, accuracies[strength] = found['weights'], found['accuracy']
            ranked.append((-found['accuracy'], found['loss']))
            advance()
    chosen = strengths[min(range(len(ranked)), key=ranked.__getitem__) if ranked else 0]
    classifier = fit_linear_classifier(
        train_features, train_labels, num_classes, chosen, device=device
    )
    advance()
    logits, test_labels = classifier.logits(test_features), test_labels.to(device)
    return LinearResult(
        top_accuracy(logits, test_labels, 1),
        top_accuracy(logits, test_labels, 5) if num_classes > 5 else None,
        chosen,
        accuracies,
        classifier,
    )


def _placed(features: Tensor, device: torch.device) -> Tensor:
    """Features on a GPU with room for them: copying blocks again and again takes longer."""
    if device.type != 'cuda' or features.device == device:
        return features
    free, _ = torch.cuda.mem_get_info(device)
    size = features.numel() * features.element_size()
    return features.to(device) if 2 * size < free else features


def _blocks(features: Tensor, rows: Tensor | None, device: torch.device) -> Iterator[Tensor]:
    """Features of some rows, or of all, block by block on a device."""
    if rows is None:
        yield from (block.to(device) for block in features.split(_ROWS))
        return
    for chosen in rows.to(features.device).split(_ROWS):
        yield features[chosen].to(device)


def _moments(features: Tensor, rows: Tensor | None, device: torch.device) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of each feature in float64; 1 for a constant one."""
    count = len(features if rows is None else rows)
    mean = sum(block.double().sum(dim=0) for block in _blocks(features, rows, device)) / count
    squares = sum(
        (block.double() - mean).square().sum(dim=0) for block in _blocks(features, rows, device)
    )
    std = (squares / count).sqrt()
    # What is left of a constant float32 feature is rounding, which must not be blown up.
    return mean, torch.where(std > 1e-6 * mean.abs(), std, torch.ones_like(std))


def _standardised(features: Tensor, mean: Tensor, std: Tensor) -> Tensor:
    return (features.to(mean.dtype) - mean) / std


def _logits(features: Tensor, weights: Tensor) -> Tensor:
    return F.linear(features, weights[:, :-1], weights[:, -1])


def _split(labels: Tensor, seed: int) -> tuple[Tensor, Tensor]:
    """Indices to learn from and to hold out, drawn class by class."""
    generator = torch.Generator().manual_seed(seed)
    kept, out = [], []
    for label in labels.cpu().unique():
        members = (labels.cpu() == label).nonzero().flatten()
        members = members[torch.randperm(len(members), generator=generator)]
        count = min(max(1, round(_HELD_OUT * len(members))), len(members) - 1)
        out.append(members[:count])
        kept.append(members[count:])
    return torch.cat(kept).sort().values, torch.cat(out).sort().values


def top_accuracy(logits: Tensor, labels: Tensor, count: int) -> float:
    """Share of rows whose label is among the best, in percent."""
    best = logits.topk(count, dim=1).indices
    return 100 * (best == labels[:, None]).any(dim=1).double().mean().item()
