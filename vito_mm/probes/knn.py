"""k-nearest-neighbour classification of frozen features."""

import torch
import torch.nn.functional as F
from torch import Tensor

from .neighbours import nearest


def knn_top1(
    train_features: Tensor,
    train_labels: Tensor,
    test_features: Tensor,
    test_labels: Tensor,
    k: int = 20,
    temperature: float = 0.07,
) -> float:
    """Top-1 accuracy of a weighted nearest-neighbour vote.

    Each of the k nearest training images (by cosine) votes for its class with weight
    exp(cosine / temperature), section 3.4 of https://arxiv.org/abs/1805.01978.

    Args:
        train_features (Tensor): Shape (N, D).
        train_labels (Tensor): Class indices, shape (N, ).
        test_features (Tensor): Shape (M, D).
        test_labels (Tensor): Class indices, shape (M, ).
        k (int): Number of neighbours, at most N are used. Defaults to 20.
        temperature (float): Defaults to 0.07.

    Returns:
        float: Percent.
    """
    num_classes = int(torch.cat([train_labels, test_labels]).max()) + 1
    train = F.normalize(train_features, dim=1)
    cosines, indices = nearest(F.normalize(test_features, dim=1), train, k)
    votes = cosines.new_zeros(len(test_labels), num_classes)
    votes.scatter_add_(1, train_labels[indices], (cosines / temperature).exp())
    correct = int((votes.argmax(dim=1) == test_labels).sum())
    return 100 * correct / len(test_labels)
