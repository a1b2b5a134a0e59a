"""VideoNet: from a collection of titled web videos to a data set whose classes match ImageNet's.

Section 3.3 of https://arxiv.org/abs/2210.06433, which released no code for it. Each step is a
:class:`.stage.Stage` that reads a table and writes one; see :mod:`.pipeline` for their order.
"""
