"""How large, how long and how hard: the presets of MiniScenes."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Preset:
    """Sizes and ranges of a MiniScenes world. Every range is (low, high), drawn uniformly.

    Attributes:
        num_videos: Number of videos unless the caller says otherwise.
        num_images: Number of training stills a task; half as many again are for validation.
        num_probe_images: Number of single-object images for training a probe, and as many to test.
        video_side: Height and width of a video, in pixels. Even.
        fps: Frames a second.
        seconds: Length of a video, in seconds.
        gop: Largest distance between key frames, in frames.
        crf: Constant rate factor of x264; lower is better and larger.
        still_size: Width and height of a still, in pixels.
        objects_per_still: Fewest and most objects of a still.
        radius: Radius of the object in videos and probe images, as a fraction of the side.
        still_radius: Radius of an object in a still, as a fraction of the shorter side.
        spin: Speed of rotation in the image plane, in radians a second, either way.
        hue_drift: Speed of the drift of the hue, in degrees a second, either way.
        tilt: Largest out-of-plane turn, in radians.
        zoom: Largest change of the radius within a video, as a factor either way.
        light: Lowest and highest brightness of the light.
        backgrounds: Number of backgrounds that all videos share. Few, so that a background does
            not tell a video: several videos of a batch have the same one.
        still_backgrounds: Number of other backgrounds that the stills share; probe images have as
            many of their own.
        pan: Largest distance the camera travels over the background, as a fraction of the side.
    """

    num_videos: int = 400
    num_images: int = 120
    num_probe_images: int = 400
    video_side: int = 96
    fps: int = 25
    seconds: float = 4.0
    gop: int = 12
    crf: int = 20
    still_size: tuple[int, int] = (160, 120)
    objects_per_still: tuple[int, int] = (1, 4)
    radius: tuple[float, float] = (0.30, 0.52)
    still_radius: tuple[float, float] = (0.20, 0.36)
    spin: tuple[float, float] = (1.5, 2.5)
    hue_drift: tuple[float, float] = (90.0, 150.0)
    tilt: float = 0.6
    zoom: float = 1.25
    light: tuple[float, float] = (0.75, 1.1)
    backgrounds: int = 12
    still_backgrounds: int = 24
    pan: float = 0.5

    @property
    def num_frames(self) -> int:
        """Number of frames of a video."""
        return round(self.fps * self.seconds)


PRESETS = {
    'demo': Preset(),
    'tiny': Preset(
        num_videos=8,
        num_images=8,
        num_probe_images=16,
        video_side=64,
        fps=10,
        seconds=3.0,
        still_size=(96, 72),
        backgrounds=4,
        still_backgrounds=4,
    ),
}
"""``demo`` suits a ResNet-18 at 64 px for a few CPU minutes; ``tiny`` is for tests."""


def get_preset(name: str) -> Preset:
    """Look a preset up.

    Args:
        name: Key of ``PRESETS``.

    Returns:
        Preset: The preset.

    Raises:
        ValueError: If there is no such preset.
    """
    if name not in PRESETS:
        raise ValueError(f'preset={name!r} is unknown; choose one of {", ".join(sorted(PRESETS))}')
    return PRESETS[name]
