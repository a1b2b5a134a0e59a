"""The renderer that videos and stills share: one object, one pose, one light."""

from dataclasses import dataclass

import cv2
import numpy as np

from .classes import CLASSES
from .colours import hsv_to_rgb
from .materials import EXTENT, draw_tile
from .outlines import draw_outline

_WAVES = (2.2, 2.8)  # of a bend, in radians over the radius: about two thirds of a wave
_EDGE = 0.1  # longest edge of a bent outline, in radii: straight ones would show


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
        perspective: How near the eye is, as the radius over its distance: what a tilt brings
            nearer looks larger. 0 is from afar. Less than 0.5.
        bend: Two waves that bend the object: amplitude (in radii) and phase (in radians) of a
            shift along y that goes with x, then of one along x that goes with y. Empty for a
            stiff object.
    """

    centre: np.ndarray
    radius: float
    angle: float = 0.0
    tilt: float = 0.0
    tilt_axis: float = 0.0
    hue: float = 0.0
    light: float = 1.0
    light_slope: tuple[float, float] = (0.0, 0.0)
    perspective: float = 0.0
    bend: tuple[float, ...] = ()

    @property
    def is_affine(self) -> bool:
        """Whether the object is seen stiff and from afar, so that a matrix says it all."""
        return not self.bend and self.perspective == 0.0


def draw_object(
    rng: np.random.Generator, label: int, radius: float, held_out: bool = False
) -> SceneObject:
    """Draw an instance of a class.

    Args:
        rng: Source of all that makes it an individual.
        label: Index into ``CLASSES``.
        radius: Radius in pixels at which it is mostly seen; sets the resolution of its tile.
        held_out: Whether its pattern and its pair of colours are of no range that is drawn from
            otherwise: see ``materials.draw_tile``; light ground, dark figure, and hues at least 90
            degrees apart. Defaults to False.

    Returns:
        SceneObject: The instance.
    """
    family = CLASSES[label]
    outline = draw_outline(family.outline, rng)
    tile = draw_tile(family.material, rng, max(16, round(2 * EXTENT * radius)), held_out)
    # Dark ground and light figure in all, so that no class is told by the order.
    dark = [rng.uniform(-30, 30), rng.uniform(0.6, 0.9), rng.uniform(0.25, 0.4)]
    light = [rng.uniform(0, 60), rng.uniform(0.3, 0.6), rng.uniform(0.85, 1.0)]
    colours = np.array([dark, light])
    if held_out:
        light[0] = dark[0] + rng.uniform(90, 270)
        colours = np.array([light, dark])
    return SceneObject(label, outline, tile, colours)


def pose_matrix(pose: Pose) -> np.ndarray:
    """Give the map from the object's coordinates to the image, of a stiff object seen from afar.

    Args:
        pose: The pose; its ``perspective`` and ``bend`` are left out.

    Returns:
        numpy.ndarray: (2, 2) float64; an object point p is seen at ``pose.centre + matrix @ p``.
    """
    turn, axis = _rotation(pose.angle), _rotation(pose.tilt_axis)
    # Seen from afar, a tilted plane is shortened across the axis that it turns about.
    return pose.radius * axis @ np.diag([1.0, np.cos(pose.tilt)]) @ axis.T @ turn


def _rotation(angle: float) -> np.ndarray:
    c, s = np.cos(angle), np.sin(angle)
    return np.array([[c, -s], [s, c]])


def outline_in_image(scene_object: SceneObject, pose: Pose) -> np.ndarray:
    """Give the outline as it is seen.

    Args:
        scene_object: The object.
        pose: Its pose.

    Returns:
        numpy.ndarray: (N, 2) float64 corners x and y, in pixels. Of a bent or near object the
        edges are cut into short ones first.
    """
    if pose.is_affine:
        return pose.centre + scene_object.outline @ pose_matrix(pose).T
    return to_image(_with_short_edges(scene_object.outline), pose)


def _with_short_edges(outline: np.ndarray) -> np.ndarray:
    edges = np.roll(outline, -1, axis=0) - outline
    counts = np.ceil(np.hypot(*edges.T) / _EDGE).astype(int)
    starts = np.repeat(np.cumsum(counts) - counts, counts)
    shares = (np.arange(counts.sum()) - starts) / np.repeat(counts, counts)
    return np.repeat(outline, counts, axis=0) + shares[:, None] * np.repeat(edges, counts, axis=0)


def to_image(points: np.ndarray, pose: Pose) -> np.ndarray:
    """Map points of an object to the image.

    Args:
        points: (N, 2) float64 in units of the radius.
        pose: The pose.

    Returns:
        numpy.ndarray: (N, 2) float64 x and y, in pixels.
    """
    u, v = points.T
    if pose.bend:
        first, first_phase, second, second_phase = pose.bend
        v = v + first * np.sin(_WAVES[0] * u + first_phase)
        u = u + second * np.sin(_WAVES[1] * v + second_phase)
    axis = _rotation(pose.tilt_axis)
    along, across = (np.stack([u, v], axis=1) @ (axis.T @ _rotation(pose.angle)).T).T
    near = 1.0 + pose.perspective * np.sin(pose.tilt) * across
    seen = np.stack([along / near, np.cos(pose.tilt) * across / near], axis=1)
    return pose.centre + pose.radius * seen @ axis.T


def to_object(x: np.ndarray, y: np.ndarray, pose: Pose) -> tuple[np.ndarray, np.ndarray]:
    """Map points of the image to the object: the inverse of :func:`to_image`.

    Args:
        x: Any shape, in pixels.
        y: The same shape or one that broadcasts with it.
        pose: The pose.

    Returns:
        tuple[numpy.ndarray, numpy.ndarray]: The coordinates u and v, in units of the radius.
    """
    axis = _rotation(pose.tilt_axis) / pose.radius
    x, y = x - pose.centre[0], y - pose.centre[1]
    along, across = axis[0, 0] * x + axis[1, 0] * y, axis[0, 1] * x + axis[1, 1] * y
    slope = pose.perspective * np.sin(pose.tilt)
    # Beyond the horizon of the plane nothing is seen; the outline does not reach there.
    across = across / np.maximum(np.cos(pose.tilt) - slope * across, 0.05)
    along = along * (1.0 + slope * across)
    turn = _rotation(pose.angle).T @ _rotation(pose.tilt_axis)
    u, v = turn[0, 0] * along + turn[0, 1] * across, turn[1, 0] * along + turn[1, 1] * across
    if pose.bend:
        first, first_phase, second, second_phase = pose.bend
        u = u - second * np.sin(_WAVES[1] * v + second_phase)
        v = v - first * np.sin(_WAVES[0] * u + first_phase)
    return u, v


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
    corners = outline_in_image(scene_object, pose)
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
    pattern = _seen_pattern(scene_object, pose, (width, height))
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


def _seen_pattern(scene_object: SceneObject, pose: Pose, size: tuple[int, int]) -> np.ndarray:
    tile = scene_object.tile
    scale = tile.shape[0] / (2 * EXTENT)
    if not pose.is_affine:
        x, y = (np.arange(length, dtype=np.float32) + np.float32(0.5) for length in size)
        u, v = to_object(x[None, :], y[:, None], pose)
        maps = [(scale * (EXTENT + part) - 0.5).astype(np.float32) for part in (u, v)]
        return cv2.remap(tile, *maps, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    inverse = np.linalg.inv(pose_matrix(pose))
    offset = scale * (EXTENT + inverse @ (0.5 - np.asarray(pose.centre))) - 0.5
    matrix = np.concatenate([scale * inverse, offset[:, None]], axis=1)
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    return cv2.warpAffine(tile, matrix, size, flags=flags, borderMode=cv2.BORDER_REPLICATE)


def to_uint8(picture: np.ndarray) -> np.ndarray:
    """Round a picture.

    Args:
        picture: float32 in [0, 1], any shape.

    Returns:
        numpy.ndarray: uint8 of the same shape.
    """
    return np.clip(picture * 255.0 + 0.5, 0, 255).astype(np.uint8)
