"""What the probes of a run have in common: when they measure, and where their numbers go."""

import time
from collections.abc import Mapping

import numpy as np
from mmengine.dist import is_main_process
from mmengine.hooks import Hook

from vito_mm.probes.embedding import undisturbed
from vito_mm.probes.frozen_features import ProbeError
from vito_mm.utils.unwrap import unwrap


class ProbeHook(Hook):
    """Measure the model now and then without leaving a trace in the run.

    Subclasses define :meth:`prepare` and :meth:`measure`. Numbers get a line of their own in the
    log and in ``vis_data/scalars.json``, with the iteration after which they hold, and go to all
    backends of the visualizer (TensorBoard, Weights & Biases, ...) and, as ``probe/<name>``, to the
    message hub. MMEngine's training line would repeat them until the next measurement.

    Args:
        interval (int): Iterations between measurements; there is one after the last iteration, too.
        begin (bool): Whether to measure before the first step as well: what random weights give.
        prefix (str): Put before the names of the numbers and pictures, to tell probes apart.

    Raises:
        ValueError: If ``interval`` is not positive. Before the first step, if the data of a probe
            cannot be used. Later, what cannot be measured is a warning: no probe ends a run.
    """

    # After the target network has moved (40) and before MMEngine's timer (50): the time that a
    # measurement takes counts as `time` and in the estimate of the end, not as time for data.
    priority = 45

    def __init__(self, interval: int, begin: bool, prefix: str) -> None:
        if interval < 1:
            raise ValueError(f'{self._field("interval")} must be positive, got {interval}')
        self.interval, self.begin, self.prefix = interval, begin, prefix

    def prepare(self, runner) -> None:
        """Look at the data before the first step.

        Args:
            runner (Runner): The runner.

        Raises:
            ProbeError: If they cannot be used.
        """

    def measure(self, runner, step: int) -> tuple[dict[str, float], dict[str, np.ndarray]]:
        """Measure the model, which is in evaluation mode. Called on all ranks.

        Args:
            runner (Runner): The runner.
            step (int): Iterations that are done.

        Returns:
            tuple: Numbers and pictures (RGB, uint8) by name; what ranks but the first return is not
            used.

        Raises:
            ProbeError: On all ranks, if there is nothing to measure.
        """
        raise NotImplementedError

    def before_train(self, runner) -> None:
        """Prepare, and measure random weights."""
        try:
            self.prepare(runner)
            if self.begin and runner.iter == 0:
                self._measure(runner, 0)
        except ProbeError as error:
            raise ValueError(f'{self._field("data")}: {error}') from None

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None) -> None:
        """Measure if it is time."""
        if self._is_time(runner):
            self._measure_or_warn(runner)

    def _is_time(self, runner) -> bool:
        return self.every_n_train_iters(runner, self.interval) or self.is_last_train_iter(runner)

    def _measure_or_warn(self, runner) -> None:
        try:
            self._measure(runner, runner.iter + 1)
        except ProbeError as error:
            runner.logger.warning(f'iteration {runner.iter + 1}: {type(self).__name__}: {error}')

    def _measure(self, runner, step: int) -> None:
        start = time.perf_counter()
        with undisturbed(unwrap(runner.model)):
            numbers, pictures = self.measure(runner, step)
        if is_main_process():
            self._report(runner, step, numbers, pictures, time.perf_counter() - start)

    def _report(
        self,
        runner,
        step: int,
        numbers: Mapping[str, float],
        pictures: Mapping[str, np.ndarray],
        seconds: float,
    ) -> None:
        numbers = {f'{self.prefix}{name}': value for name, value in numbers.items()}
        for name, value in numbers.items():
            runner.message_hub.update_scalar(f'probe/{name}', value)
        values = '  '.join(f'{name}: {value:.4f}' for name, value in numbers.items())
        runner.logger.info(f'Iter(probe) [{step}/{runner.max_iters}]  {values}  ({seconds:.1f} s)')
        # As LoggerHook does, with `iter` for backends that count calls instead of steps.
        runner.visualizer.add_scalars(
            dict(numbers, iter=step), step=step, file_path=f'{runner.timestamp}.json'
        )
        for name, picture in pictures.items():
            runner.visualizer.add_image(f'{self.prefix}{name}', picture, step=step)

    @classmethod
    def _field(cls, name: str) -> str:
        return f'{cls.__name__}.{name}'
