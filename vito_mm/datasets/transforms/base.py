"""Base of the transforms."""

from mmcv.transforms import BaseTransform


class Transform(BaseTransform):
    """A transform that shows its settings, which are its attributes, where it is printed."""

    def __repr__(self) -> str:
        settings = ', '.join(f'{name}={value!r}' for name, value in self.__dict__.items())
        return f'{type(self).__name__}({settings})'
