"""InfoNCE between online and target projections of all pairs of views."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from mmengine.dist import all_gather, get_rank
from mmengine.model import BaseModule
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from vito_mm.registry import MODELS

NEGATIVES = ('target_view', 'all_views')
"""Known values of ``negatives``."""
UNKNOWN_FILE = -1
"""Id of a clip whose file is not known: it shares it with no other clip."""
TIE = 1e-6
"""Cosines that differ by less are equal: rounding must not choose the nearest projection."""
MAX_ROWS = 512
"""Local videos whose similarities are in memory at a time."""


@MODELS.register_module()
class InfoNCEHead(BaseModule):
    r"""InfoNCE over all ordered pairs of views, negatives from the global batch.

    Section 3.2 of https://arxiv.org/abs/2210.06433. For an ordered pair of views i != j of a video
    with online projection z_i and target projection z'_j, all scaled to norm
    :math:`1 / \sqrt{\tau}`,

    .. math::
        L_{ij} = -\log \frac{\exp(z_i \cdot z'_j)}
                            {\exp(z_i \cdot z'_j) + \sum_n \exp(z_i \cdot z'_{n})}

    where n runs over the other videos of the batch on all ranks, without clips of the same file
    (parts of it, or one that is listed several times). The loss is the mean over videos of the sum
    over pairs (six terms for three views). Only the online projections carry gradients.

    Args:
        temperature (float): :math:`\tau`. Defaults to 0.1.
        negatives (str): 'target_view' takes the negatives of a pair from view j of the other
            videos, as in the paper. 'all_views' takes all their views (DetCon's wider set).
            Defaults to 'target_view'.
        mask_same_file (bool): Leave clips of the same file out of the negatives. False suits a few
            long recordings, whose parts are told apart then. Defaults to True.
        init_cfg (dict | list[dict], optional): Initialisation. Defaults to None.

    Raises:
        ValueError: If the temperature is not positive or ``negatives`` is unknown.
    """

    def __init__(
        self,
        temperature: float = 0.1,
        negatives: str = 'target_view',
        mask_same_file: bool = True,
        init_cfg: dict | list[dict] | None = None,
    ) -> None:
        super().__init__(init_cfg)
        if not temperature > 0:
            raise ValueError(f'temperature must be positive, got {temperature}')
        if negatives not in NEGATIVES:
            raise ValueError(f'negatives must be one of {NEGATIVES}, got {negatives!r}')
        self.temperature = temperature
        self.negatives = negatives
        self.mask_same_file = mask_same_file

    def forward(
        self,
        online: Sequence[Tensor],
        target: Sequence[Tensor],
        file_ids: Tensor | None = None,
    ) -> dict[str, Tensor]:
        """Compute the loss and figures of learning.

        Args:
            online (Sequence[Tensor]): Online projections, one tensor (N, D) per view, at least two
                views. They need not be normalised.
            target (Sequence[Tensor]): Target projections, as many of the same shape, which get no
                gradient.
            file_ids (Tensor, optional): Integer of each clip's file, the same on all ranks, or
                ``UNKNOWN_FILE``; shape (N, ), int64. Defaults to None, all unknown.

        Returns:
            dict[str, Tensor]: Scalars. ``loss``: see above. ``pair_nll``: the mean over pairs,
            comparable between numbers of views (chance: log of the global batch).
            ``top1_acc``: share in percent of online projections whose nearest target projection,
            among the own video's and the negatives, is that of their own video; equally near ones
            share. ``similarity_pos``, ``similarity_neg``: mean cosine with the own video, and with
            each clip's negatives. ``embedding_std``: standard deviation of the normalised online
            projections over the local batch, averaged over dimensions and times sqrt(D): near 1
            where they spread over the sphere, near 0 when they collapse.

        Raises:
            ValueError: If there are fewer than two views or fewer than two videos in the batch.
        """
        if len(online) < 2 or len(online) != len(target):
            raise ValueError(
                'InfoNCE needs at least 2 views, online and target alike, got '
                f'{len(online)} and {len(target)}'
            )
        # float32 (float64 in tests) in any autocast: the loss is cheap and sums exponentials.
        with torch.autocast(online[0].device.type, enabled=False):
            return self._loss(*(unit_vectors(views) for views in (online, target)), file_ids)

    def _loss(self, online: Tensor, target: Tensor, file_ids: Tensor | None) -> dict[str, Tensor]:
        num_local = online.size(1)
        # Targets carry no gradient, so a plain gather is enough: no gradient has to come back.
        gathered = torch.cat(all_gather(target.detach().contiguous()), dim=1)
        if gathered.size(1) < 2:
            raise ValueError(
                'InfoNCE has no negatives in a batch of 1 video: raise train_dataloader.batch_size'
            )
        if file_ids is None or not self.mask_same_file:
            file_ids = torch.full((num_local,), UNKNOWN_FILE, device=online.device)
        files = torch.cat(all_gather(file_ids))
        own = torch.arange(num_local, device=online.device) + get_rank() * num_local
        means: dict[str, Tensor] = {}
        for rows in torch.arange(num_local, device=online.device).split(MAX_ROWS):
            args = (online[:, rows], own[rows], gathered, files)
            if len(rows) == num_local:
                part = self._means_over_rows(*args)
            else:
                # Similarities grow with the square of the batch: hold those of some rows only, and
                # compute them again in the backward pass.
                part = checkpoint(self._means_over_rows, *args, use_reentrant=False)
            for name, mean in part.items():
                means[name] = means.get(name, 0) + mean * (len(rows) / num_local)
        with torch.no_grad():
            std = online.std(dim=1, correction=0).mean() * online.size(-1) ** 0.5
        return {**means, 'embedding_std': std}

    def _means_over_rows(
        self, online: Tensor, own: Tensor, gathered: Tensor, files: Tensor
    ) -> dict[str, Tensor]:
        """Means over some local videos.

        Args:
            online (Tensor): Their online projections, shape (V, N, D), of norm 1.
            own (Tensor): Their indices in the global batch, shape (N, ).
            gathered (Tensor): Target projections of the global batch, shape (V, M, D), of norm 1.
            files (Tensor): Ids of the files of the global batch, shape (M, ).
        """
        num_views, num_local = online.shape[:2]
        num_global = gathered.size(1)
        # cosine[i, n, j, m]: online view i of local video n with target view j of global video m.
        cosine = torch.einsum('ind,jmd->injm', online, gathered)
        same_file = (files[own, None] == files) & (files != UNKNOWN_FILE)
        masked = same_file & ~F.one_hot(own, num_global).bool()
        cosine = cosine.masked_fill(masked[:, None], float('-inf'))
        num_negatives = (num_global - 1 - masked.sum(dim=1)).clamp(min=1)

        losses, correct, positives, negatives = [], [], [], []
        rows = torch.arange(num_local, device=online.device)
        for i in range(num_views):
            if self.negatives == 'all_views':
                others = self._without_own_video(cosine[i], own)
            for j in range(num_views):
                if i == j:
                    continue
                positive = cosine[i, rows, j, own]
                if self.negatives == 'all_views':
                    similarities, label = torch.cat([positive[:, None], others], dim=1), rows * 0
                else:
                    similarities, label = cosine[i, :, j], own
                losses.append(F.cross_entropy(similarities / self.temperature, label))
                with torch.no_grad():
                    correct.append(_share_of_nearest(similarities, positive))
                    positives.append(positive.mean())
                    totals = cosine[i, :, j].masked_fill(masked, 0).sum(dim=1) - positive
                    negatives.append((totals / num_negatives).mean())

        loss = torch.stack(losses).sum()
        with torch.no_grad():
            return {
                'loss': loss,
                'pair_nll': loss / len(losses),
                'top1_acc': torch.stack(correct).mean() * 100,
                'similarity_pos': torch.stack(positives).mean(),
                'similarity_neg': torch.stack(negatives).mean(),
            }

    @staticmethod
    def _without_own_video(cosine: Tensor, own: Tensor) -> Tensor:
        """Cosines (N, V, M) as (N, V * M), the own video's views at minus infinity."""
        mask = F.one_hot(own, cosine.size(-1)).bool()
        return cosine.masked_fill(mask[:, None], float('-inf')).flatten(1)


def _share_of_nearest(similarities: Tensor, positive: Tensor) -> Tensor:
    """Mean over rows of the positive's share of the nearest place, which equals divide."""
    is_nearest = positive >= similarities.amax(dim=1) - TIE
    equals = (similarities >= positive[:, None] - TIE).sum(dim=1).clamp(min=1)
    return (is_nearest / equals).mean()


def unit_vectors(views: Sequence[Tensor]) -> Tensor:
    """Stack views to (V, N, D) and normalise, in float32 at least."""
    stacked = torch.stack(list(views))
    dtype = torch.promote_types(stacked.dtype, torch.float32)
    return F.normalize(stacked.to(dtype), dim=-1)
