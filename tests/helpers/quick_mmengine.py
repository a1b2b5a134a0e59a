"""What MMEngine does again for each config, once per process."""

from functools import cache

import mmengine.config.config
import mmengine.config.utils


def quicken() -> None:
    """Leave saved configs unformatted, and look into the installed packages once.

    For each config that is named as ``mmdet::...`` MMEngine loads :mod:`pkg_resources` again and
    parses all metafiles of the package.
    """
    config, utils = mmengine.config.config, mmengine.config.utils
    config.FormatCode = lambda text, **_: (text, True)
    config.is_installed = cache(config.is_installed)
    utils.load = cache(utils.load)
