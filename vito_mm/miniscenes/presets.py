"""Presets of MiniScenes: size, length and difficulty."""

from dataclasses import dataclass

from .classes import CLASSES


@dataclass(frozen=True)
class Difficulty:
    """Ranges of a world that is harder than one object in front of a smooth background.

    Every range is (low, high), drawn uniformly. A side is that of a video, or the shorter one of
    a still.

    Attributes:
        shot: Length of a shot, in seconds. At a cut all but the object itself changes.
        things: Number of things that all videos share, as clutter and as occluders. Few, so that
            a thing does not identify a video.
        clutter: Fewest and most things behind the objects, in a shot or still.
        clutter_radius: Radius of a thing behind the objects, as a fraction of the side.
        occluders: Fewest and most things in front of the objects; in a shot they cross the
            picture.
        occluder_radius: Radius of such a thing, as a fraction of the side.
        crossing: Time of an occluder to cross the picture, in seconds.
        companion: Share of the videos with a second, smaller object of some class behind the
            first.
        companion_size: Radius of the companion, as a fraction of the range of the first object.
        off_centre: Largest distance of the mean position of the object from the centre, along x
            and y, as a fraction of the side.
        perspective: Largest radius over distance of the eye, see ``render.Pose``.
        bend: Largest amplitude of each of the two waves that bend the object, in radii.
        camera_zoom: Largest zoom of the camera, as a factor either way.
        camera_roll: Largest roll of the camera, in radians either way.
        shake: Largest shift of the picture by a shaking hand, as a fraction of the side.
        tint: Largest change of the red, green and blue of the light, as a fraction either way.
        shadow: Largest darkening by a soft moving shadow, in [0, 1).
        backgrounds: Kinds of backgrounds of the videos, keys of ``backgrounds.KINDS``.
        other_backgrounds: Kinds of backgrounds of all stills.
    """

    shot: tuple[float, float] = (2.0, 4.0)
    things: int = 24
    clutter: tuple[int, int] = (2, 5)
    clutter_radius: tuple[float, float] = (0.08, 0.20)
    occluders: tuple[int, int] = (1, 2)
    occluder_radius: tuple[float, float] = (0.15, 0.30)
    crossing: tuple[float, float] = (1.2, 2.4)
    companion: float = 0.3
    companion_size: tuple[float, float] = (0.4, 0.6)
    off_centre: float = 0.08
    perspective: float = 0.3
    bend: float = 0.12
    camera_zoom: float = 1.2
    camera_roll: float = 0.25
    shake: float = 0.015
    tint: float = 0.2
    shadow: float = 0.45
    backgrounds: tuple[str, ...] = ('smooth', 'clouds', 'patches')
    other_backgrounds: tuple[str, ...] = ('spots', 'facets', 'dunes')


@dataclass(frozen=True)
class Preset:
    """Sizes and ranges of a MiniScenes world. Every range is (low, high), drawn uniformly.

    Attributes:
        num_videos: Default number of videos.
        num_images: Number of training stills per task; half as many again are for validation.
        num_probe_images: Number of single-object images for training a probe, and as many to test.
        video_side: Height and width of a video, in pixels. Even.
        fps: Frames per second.
        seconds: Length of a video, in seconds.
        gop: Largest distance between key frames, in frames.
        crf: Constant rate factor of x264; lower is better and larger.
        still_size: Width and height of a still, in pixels.
        objects_per_still: Fewest and most objects of a still.
        radius: Radius of the object in videos and probe images, as a fraction of the side.
        still_radius: Radius of an object in a still, as a fraction of the shorter side.
        spin: Speed of rotation in the image plane, in radians per second, either way.
        hue_drift: Speed of the drift of the hue, in degrees per second, either way.
        tilt: Largest out-of-plane turn, in radians.
        zoom: Largest change of the radius within a video, as a factor either way.
        light: Lowest and highest brightness of the light.
        backgrounds: Number of backgrounds that all videos share. Few, so that several videos of a
            batch have the same one.
        still_backgrounds: Number of other backgrounds of the stills, and of the probe images.
        pan: Largest distance the camera travels over the background, as a fraction of the side.
        difficulty: Ranges of a harder world. None for one object in front of a smooth background.
        classes: Indices into ``CLASSES`` of the classes that there are.
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
    difficulty: Difficulty | None = None
    classes: tuple[int, ...] = tuple(range(len(CLASSES)))

    def label_of(self, index: int) -> int:
        """Compute the class of a video or probe image from its index: the classes take turns."""
        return self.classes[index % len(self.classes)]

    @property
    def num_frames(self) -> int:
        """Number of frames of a video."""
        return round(self.fps * self.seconds)


PRESETS = {
    'demo': Preset(),
    'study_small': Preset(
        num_videos=800,
        num_images=160,
        seconds=6.0,
        radius=(0.27, 0.46),
        backgrounds=12,
        difficulty=Difficulty(),
    ),
    'study': Preset(
        num_videos=2000,
        num_images=400,
        num_probe_images=800,
        video_side=128,
        seconds=8.0,
        still_size=(240, 180),
        radius=(0.24, 0.44),
        still_radius=(0.15, 0.32),
        objects_per_still=(1, 5),
        tilt=0.9,
        light=(0.65, 1.1),
        backgrounds=24,
        still_backgrounds=48,
        difficulty=Difficulty(clutter=(3, 7), occluders=(1, 3), companion=0.4, bend=0.15),
    ),
    'attention': Preset(
        num_videos=600,
        num_images=160,
        video_side=128,
        seconds=6.0,
        # 24 to 40 % of the side: the background is most of the picture.
        radius=(0.12, 0.20),
        still_radius=(0.12, 0.20),
        objects_per_still=(2, 5),
        difficulty=Difficulty(
            clutter=(3, 6),
            clutter_radius=(0.05, 0.12),
            occluder_radius=(0.06, 0.12),
            off_centre=0.2,
            companion=0.4,
            bend=0.08,
            shadow=0.3,
        ),
    ),
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
"""``demo`` suits a ResNet-18 at 64 px for a few CPU minutes, ``study_small`` one for an hour,
``study`` a ResNet-50 on a GPU; ``attention`` has small objects off the centre, so that where a
network looks can matter; ``tiny`` is for tests."""


def get_preset(name: str) -> Preset:
    """Look up a preset by its name; an unknown one is a ValueError."""
    if name not in PRESETS:
        raise ValueError(f'preset={name!r} is unknown; choose one of {", ".join(sorted(PRESETS))}')
    return PRESETS[name]
