"""The renderer that videos and stills share: one object, one pose, one light."""

from dataclasses import dataclass

import cv2
import numpy as np

from .classes import CLASSES
from .colours import hsv_to_rgb
from .materials import EXTENT, draw_tile
from .outlines import draw_outline


@dataclass(frozen=True)
class SceneObject:
    """What stays the same through a video.

    Attributes:
        label: Index into ``CLASSES``.
        outline: (N, 2) float64 polygon in units of the radius.
        tile: (T, T) float32 pattern, see ``materials.draw_tile``.
        colours: Two rows of hue (degrees, relative to the hue of the moment), saturation, value.
    """

    label: int
    outline: np.ndarray
    tile: np.ndarray
    colours: np.ndarray


@dataclass(frozen=True)
class Pose:
    """What changes from frame to frame.

    Attributes:
        centre: Centre of the object, x and y in pixels; a pixel's centre lies at .5.
        radius: Radius in pixels.
        angle: Turn in the image plane, in radians.
        tilt: Out-of-plane turn, in radians.
        tilt_axis: Direction of the axis it turns about, in radians, in the image.
        hue: Hue of the moment, in degrees.
        light: Brightness of the light; 1 leaves colours as they are.
        light_slope: Change of the brightness over the radius, along x and y.
    """

    centre: np.ndarray
    radius: float
    angle: float = 0.0
    tilt: float = 0.0
    tilt_axis: float = 0.0
    hue: float = 0.0
    light: float = 1.0
    light_slope: tuple[float, float] = (0.0, 0.0)


def draw_object(rng: np.random.Generator, label: int, radius: float) -> SceneObject:
    """Draw an instance of a class.

    Args:
        rng: Source of all that makes it an individual.
        label: Index into ``CLASSES``.
        radius: Radius in pixels at which it is mostly seen; sets the resolution of its tile.

    Returns:
        SceneObject: The instance.
    """
    family = CLASSES[label]
    outline = draw_outline(family.outline, rng)
    tile = draw_tile(family.material, rng, max(16, round(2 * EXTENT * radius)))
    # Dark ground and light figure in all, so that no class is told by the order.
    dark = [rng.uniform(-30, 30), rng.uniform(0.6, 0.9), rng.uniform(0.25, 0.4)]
    light = [rng.uniform(0, 60), rng.uniform(0.3, 0.6), rng.uniform(0.85, 1.0)]
    colours = np.array([dark, light])
    return SceneObject(label, outline, tile, colours)


def pose_matrix(pose: Pose) -> np.ndarray:
    """Give the map from the object's coordinates to the image.

    Args:
        pose: The pose.

    Returns:
        numpy.ndarray: (2, 2) float64; an object point p is seen at ``pose.centre + matrix @ p``.
    """
    c, s = np.cos(pose.angle), np.sin(pose.angle)
    turn = np.array([[c, -s], [s, c]])
    c, s = np.cos(pose.tilt_axis), np.sin(pose.tilt_axis)
    axis = np.array([[c, -s], [s, c]])
    # Seen from afar, a tilted plane is shortened across the axis that it turns about.
    return pose.radius * axis @ np.diag([1.0, np.cos(pose.tilt)]) @ axis.T @ turn


def coverage(
    scene_object: SceneObject, pose: Pose, size: tuple[int, int], supersampling: int = 4
) -> np.ndarray:
    """Compute how much of every pixel the object covers.

    Args:
        scene_object: The object.
        pose: Its pose.
        size: Width and height of the picture, in pixels.
        supersampling: Number of samples along a pixel. The outline comes out wider by half a
            sample at most. Defaults to 4.

    Returns:
        numpy.ndarray: (height, width) float32 in [0, 1]. The mask is where it is above 0.5.
    """
    width, height = size
    corners = pose.centre + scene_object.outline @ pose_matrix(pose).T
    fine = np.zeros((height * supersampling, width * supersampling), np.uint8)
    # cv2 puts the centre of a pixel at a whole number, and reads 4 fractional bits here.
    points = np.round((corners * supersampling - 0.5) * 16).astype(np.int32)
    cv2.fillPoly(fine, [points], 255, lineType=cv2.LINE_8, shift=4)
    return cv2.resize(fine, (width, height), interpolation=cv2.INTER_AREA).astype(np.float32) / 255


def paint(
    picture: np.ndarray, scene_object: SceneObject, pose: Pose, alpha: np.ndarray | None = None
) -> np.ndarray:
    """Paint an object over a picture.

    Args:
        picture: (height, width, 3) float32 RGB in [0, 1].
        scene_object: The object.
        pose: Its pose.
        alpha: Its coverage, where it is already known. Defaults to None: computed.

    Returns:
        numpy.ndarray: The picture with the object in front, a new array of the same shape.
    """
    height, width = picture.shape[:2]
    if alpha is None:
        alpha = coverage(scene_object, pose, (width, height))
    inverse = np.linalg.inv(pose_matrix(pose))
    scale = scene_object.tile.shape[0] / (2 * EXTENT)
    offset = scale * (EXTENT + inverse @ (0.5 - np.asarray(pose.centre))) - 0.5
    matrix = np.concatenate([scale * inverse, offset[:, None]], axis=1)
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    pattern = cv2.warpAffine(
        scene_object.tile, matrix, (width, height), flags=flags, borderMode=cv2.BORDER_REPLICATE
    )
    first, second = (
        hsv_to_rgb(hue + pose.hue, saturation, value)
        for hue, saturation, value in scene_object.colours
    )
    slope_x, slope_y = pose.light_slope
    x = (np.arange(width, dtype=np.float32) + 0.5 - np.float32(pose.centre[0])) / pose.radius
    y = (np.arange(height, dtype=np.float32) + 0.5 - np.float32(pose.centre[1])) / pose.radius
    shade = np.clip(pose.light + slope_x * x[None, :] + slope_y * y[:, None], 0.3, 1.3)
    colour = first + pattern[..., None] * (second - first)
    colour *= shade[..., None].astype(np.float32)
    return picture + alpha[..., None] * (np.minimum(colour, 1.0) - picture)


def to_uint8(picture: np.ndarray) -> np.ndarray:
    """Round a picture.

    Args:
        picture: float32 in [0, 1], any shape.

    Returns:
        numpy.ndarray: uint8 of the same shape.
    """
    return np.clip(picture * 255.0 + 0.5, 0, 255).astype(np.uint8)
