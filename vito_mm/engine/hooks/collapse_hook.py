"""A warning when all embeddings become the same."""

from mmengine.hooks import Hook

from vito_mm.registry import HOOKS


@HOOKS.register_module()
class CollapseHook(Hook):
    """Warn when the spread of the embeddings nears 0.

    Watches the logged ``embedding_std`` of ``InfoNCEHead``: near 1 where embeddings spread over the
    sphere, 0 where all are the same.

    Args:
        threshold (float): Mean spread below which to warn. Defaults to 0.05.
        interval (int): Iterations that are averaged, and between two looks. Defaults to 100.
        begin (int): First iteration to look at, as an untrained network has little spread.
            Defaults to 500.
    """

    def __init__(self, threshold: float = 0.05, interval: int = 100, begin: int = 500) -> None:
        self.threshold = threshold
        self.interval = interval
        self.begin = begin

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None) -> None:
        """Look at the mean of the last iterations."""
        if runner.iter + 1 < self.begin or not self.every_n_train_iters(runner, self.interval):
            return
        history = runner.message_hub.log_scalars.get('train/embedding_std')
        if history is None:
            return
        spread = history.mean(self.interval)
        if spread < self.threshold:
            runner.logger.warning(
                f'iteration {runner.iter + 1}: the embeddings collapse, their deviation '
                f'(embedding_std) was {spread:.4f} on average over {self.interval} iterations; 1 '
                'is spread evenly, 0 is all the same. Look at learning rate, temperature and batch '
                'size'
            )
