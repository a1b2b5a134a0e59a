"""LVIS evaluation that runs on the current numpy."""

import tempfile
from collections import OrderedDict, defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from mmdet.evaluation.metrics import LVISMetric
from mmengine.fileio import load
from mmengine.logging import MMLogger

MAX_DETECTIONS = 300
"""Detections of one image that count, over all categories (LVIS rules)."""

ITEMS = ('AP', 'AP50', 'AP75', 'APs', 'APm', 'APl', 'APr', 'APc', 'APf')


class FasterLVISMetric(LVISMetric):
    """mmdet's LVISMetric with faster-coco-eval in the place of the lvis package's evaluation.

    The lvis package (0.5.3 in the registry) uses ``np.float``, which numpy 1.24 removed, and fails
    after the whole validation. Keywords, collected results and the names of the metrics
    (``lvis/bbox_AP``, ``lvis/bbox_APr``, ``lvis/segm_AP50``, ...) are those of mmdet's class.

    The rules are those of LVIS (https://www.lvisdataset.org/rules): the 300 best detections of an
    image count; a detection of a category that is neither annotated nor listed as absent in the
    image is left out; an unmatched one of a category that is not exhaustively annotated is ignored.

    It differs from mmdet's class in this: values are not rounded to three decimals; areas
    (``segm_APs`` and so on) are those of masks, as in detectron2, not of boxes; an empty result
    scores 0 instead of nothing; ``ann_file`` is required, since the federated lists and the
    frequencies are only there; proposals are not evaluated.

    Args:
        ann_file (str): LVIS annotation file.
        metric (str | list[str]): ``'bbox'``, ``'segm'`` or both. Defaults to 'bbox'.
        metric_items (Sequence[str], optional): Which of AP, AP50, AP75, APs, APm, APl, APr, APc,
            APf to report. Defaults to None, which reports all.
        **kwargs: As in mmdet's ``LVISMetric``; ``classwise=True`` adds ``{name}_precision``.

    Raises:
        ImportError: If faster-coco-eval is not installed.
        ValueError: If ``metric`` or ``metric_items`` holds anything else.
    """

    def __init__(
        self,
        ann_file: str,
        metric: str | list[str] = 'bbox',
        metric_items: Sequence[str] | None = None,
        **kwargs: Any,
    ) -> None:
        try:
            import faster_coco_eval  # noqa: F401
        except ImportError:
            raise ImportError(
                'FasterLVISMetric needs faster-coco-eval. Run: pip install "vito_mm[lvis]"'
            ) from None
        super().__init__(ann_file=ann_file, metric=metric, metric_items=metric_items, **kwargs)
        if unknown := set(self.metrics) - {'bbox', 'segm'}:
            raise ValueError(f"metric must be 'bbox', 'segm' or both, got {sorted(unknown)}")
        if unknown := set(metric_items or ()) - set(ITEMS):
            raise ValueError(f'metric_items must be among {ITEMS}, got {sorted(unknown)}')

    def compute_metrics(self, results: list) -> dict[str, float]:
        """Evaluate what ``process`` has collected.

        Args:
            results (list[tuple[dict, dict]]): Image and predictions of every validated image.

        Returns:
            dict[str, float]: Metrics in [0, 1] by name; -1 where the annotations hold no instance
            to measure it on.
        """
        logger = MMLogger.get_current_instance()
        predictions = [prediction for _, prediction in results]
        self.cat_ids = self._lvis_api.get_cat_ids()
        self.img_ids = self._lvis_api.get_img_ids()
        with tempfile.TemporaryDirectory() as folder:
            prefix = self.outfile_prefix or str(Path(folder) / 'results')
            files = self.results2json(predictions, prefix)
            if self.format_only:
                logger.info(f'results are saved in {Path(prefix).parent}')
                return OrderedDict()
            detections = {metric: load(files[metric]) for metric in self.metrics}

        metrics: dict[str, float] = OrderedDict()
        for metric in self.metrics:
            logger.info(f'Evaluating {metric}...')
            metrics.update(self._average_precisions(detections[metric], metric, logger))
        return metrics

    def _average_precisions(
        self, detections: list[dict], metric: str, logger: MMLogger
    ) -> dict[str, float]:
        from faster_coco_eval import COCO, COCOeval_faster

        ground_truth = COCO(self._lvis_api.dataset)
        evaluation = COCOeval_faster(
            ground_truth,
            ground_truth.loadRes(best_detections(detections, metric)),
            iouType=metric,
            lvis_style=True,
            print_function=logger.info,
        )
        evaluation.params.maxDets = [MAX_DETECTIONS]
        evaluation.params.iouThrs = np.atleast_1d(self.iou_thrs)
        evaluation.evaluate()
        evaluation.accumulate()

        # (IoU threshold, recall, category, area, maximum of detections)
        precision = evaluation.eval['precision'][..., 0]
        categories = dict(zip('rcf', evaluation.freq_groups, strict=True))
        areas = {name[0]: i for i, name in enumerate(evaluation.params.areaRngLbl)}
        values = {}
        for item in self.metric_items or ITEMS:
            part, kind = precision[..., 0], item.removeprefix('AP')
            if kind.isdigit():
                part = part[np.isclose(evaluation.params.iouThrs, int(kind) / 100)]
            elif kind in categories:
                part = part[:, :, categories[kind]]
            elif kind:
                part = precision[..., areas[kind]]
            values[f'{metric}_{item}'] = _mean(part, absent=-1.0)
        logger.info(', '.join(f'{name} {value:.4f}' for name, value in values.items()))
        if self.classwise:
            for index, cat_id in enumerate(evaluation.params.catIds):
                name = self._lvis_api.cats[cat_id]['name']
                values[f'{name}_precision'] = _mean(precision[:, :, index, 0], absent=np.nan)
        return values


def best_detections(detections: list[dict], metric: str) -> list[dict]:
    """The detections that LVIS counts, ready for evaluation.

    Args:
        detections (list[dict]): In COCO's result format.
        metric (str): ``'bbox'`` or ``'segm'``. For the latter boxes are dropped, because otherwise
            the area of an instance would be its box's.

    Returns:
        list[dict]: The 300 highest scores of every image.
    """
    by_image = defaultdict(list)
    for detection in detections:
        if metric == 'segm':
            detection.pop('bbox', None)
        by_image[detection['image_id']].append(detection)
    return [
        detection
        for group in by_image.values()
        for detection in sorted(group, key=lambda d: d['score'], reverse=True)[:MAX_DETECTIONS]
    ]


def _mean(values: np.ndarray, absent: float) -> float:
    """Mean over what could be measured; the evaluation marks the rest by -1."""
    measured = values[values > -1]
    return float(measured.mean()) if measured.size else absent
