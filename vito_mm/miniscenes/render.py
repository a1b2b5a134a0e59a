"""The renderer of videos and stills: one object in one pose, and scenes of several layers."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import cv2
import numpy as np

from .objects import EXTENT, SceneObject, hsv_to_rgb

_WAVES = (2.2, 2.8)  # of a bend, in radians over the radius: about two thirds of a wave
_EDGE = 0.1  # longest edge of a bent outline, in radii: straight ones would show
_SOFTNESS = 0.15  # of the edge of a shadow, in sides


@dataclass(frozen=True)
class Pose:
    """Position and appearance of an object in one frame.

    Attributes:
        centre: Centre of the object, x and y in pixels; a pixel's centre lies at .5.
        radius: Radius in pixels.
        angle: Turn in the image plane, in radians.
        tilt: Out-of-plane turn, in radians.
        tilt_axis: Direction of the axis of the tilt, in radians, in the image.
        hue: Hue of the moment, in degrees.
        light: Brightness of the light; 1 leaves colours as they are.
        light_slope: Change of the brightness over the radius, along x and y.
        perspective: Radius over the distance of the eye, less than 0.5: what a tilt brings nearer
            looks larger. 0 is from afar.
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
        """True for a stiff object seen from afar, which a matrix describes."""
        return not self.bend and self.perspective == 0.0


Layer = tuple[SceneObject, Pose]
"""An object or thing and its pose in the picture."""


def pose_matrix(pose: Pose) -> np.ndarray:
    """Compute the map from object to image, of a stiff object seen from afar.

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
    """Project the outline: (N, 2) float64 corners x and y, in pixels.

    Edges of a bent or near object are cut into short ones first.
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
    """Map points of an object, (N, 2) float64 in radii, to x and y in the image, in pixels."""
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
    """Map x and y in the image, in pixels, to the object: the inverse of :func:`to_image`."""
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
    """Compute the share of every pixel that the object covers.

    Args:
        scene_object: The object.
        pose: Its pose.
        size: Width and height of the picture, in pixels.
        supersampling: Number of samples along a pixel. The outline is wider by half a sample at
            most. Defaults to 4.

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
        alpha: Its coverage, if known. Computed by default.

    Returns:
        numpy.ndarray: The new picture.
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


@dataclass(frozen=True)
class Camera:
    """View of a scene.

    Attributes:
        position: Place in the scene at the centre of the picture, x and y in pixels at zoom 1; the
            middle of the background is (0, 0).
        zoom: Magnification.
        roll: Turn of the picture, in radians.
    """

    position: np.ndarray
    zoom: float = 1.0
    roll: float = 0.0

    def matrix(self, size: tuple[int, int]) -> np.ndarray:
        """Compute the map from the scene to a picture of this width and height.

        Returns:
            numpy.ndarray: (2, 3) float64; a place p is seen at ``matrix @ (*p, 1)``.
        """
        c, s = np.cos(self.roll), np.sin(self.roll)
        turn = self.zoom * np.array([[c, -s], [s, c]])
        shift = np.array(size) / 2 - turn @ self.position
        return np.concatenate([turn, shift[:, None]], axis=1)

    def see(self, pose: Pose, size: tuple[int, int]) -> Pose:
        """Convert a pose in the scene to that in a picture of this width and height."""
        matrix = self.matrix(size)
        return replace(
            pose,
            centre=matrix[:, :2] @ pose.centre + matrix[:, 2],
            radius=self.zoom * pose.radius,
            angle=self.roll + pose.angle,
        )


@dataclass(frozen=True)
class Light:
    """Light of a picture.

    Attributes:
        gains: (3,) factors of red, green and blue.
        shadow: Darkening where the shadow is full, in [0, 1).
        edge: The soft edge of the shadow: direction to its dark side in radians, and distance
            from the middle of the picture in sides.
    """

    gains: np.ndarray
    shadow: float = 0.0
    edge: tuple[float, float] = (0.0, 0.0)


@dataclass(frozen=True)
class Scene:
    """Content of a picture.

    Attributes:
        background: (H, W, 3) float32 RGB in [0, 1], larger than the picture.
        camera: The camera, for the background; the layers are in the picture already.
        layers: Objects and things, from back to front.
        light: The light.
    """

    background: np.ndarray
    camera: Camera
    layers: tuple[Layer, ...]
    light: Light


def render_scene(
    scene: Scene, size: tuple[int, int], alphas: Sequence[np.ndarray | None] | None = None
) -> np.ndarray:
    """Paint a scene.

    Args:
        scene: The scene.
        size: Width and height of the picture, in pixels.
        alphas: Coverage of each layer, None where unknown. Computed by default.

    Returns:
        numpy.ndarray: (height, width, 3) uint8 RGB.
    """
    high, wide = scene.background.shape[:2]
    matrix = scene.camera.matrix(size)
    matrix[:, 2] += matrix[:, :2] @ [(1 - wide) / 2, (1 - high) / 2] - 0.5
    picture = cv2.warpAffine(
        scene.background, matrix, size, flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT_101
    )
    for number, layer in enumerate(scene.layers):
        _paint_in_box(picture, layer, None if alphas is None else alphas[number])
    return to_uint8(picture * _shade(scene.light, size))


def _paint_in_box(picture: np.ndarray, layer: Layer, alpha: np.ndarray | None) -> None:
    """Paint a layer within its bounding box, mostly a small part of the picture."""
    scene_object, pose = layer
    height, width = picture.shape[:2]
    corners = outline_in_image(scene_object, pose)
    x1, y1 = np.clip(np.floor(corners.min(axis=0)).astype(int) - 1, 0, [width, height])
    x2, y2 = np.clip(np.ceil(corners.max(axis=0)).astype(int) + 1, 0, [width, height])
    if x1 < x2 and y1 < y2:
        part = np.s_[y1:y2, x1:x2]
        pose = replace(pose, centre=pose.centre - [x1, y1])
        known = None if alpha is None else alpha[part]
        picture[part] = paint(picture[part], scene_object, pose, known)


def _shade(light: Light, size: tuple[int, int]) -> np.ndarray:
    gains = np.asarray(light.gains, np.float32)
    if light.shadow == 0.0:
        return gains
    angle, distance = light.edge
    x, y = (
        (np.arange(length, dtype=np.float32) + np.float32(0.5)) / np.float32(min(size))
        - np.float32(length / (2 * min(size)))
        for length in size
    )
    inside = np.float32(np.cos(angle)) * x[None, :] + np.float32(np.sin(angle)) * y[:, None]
    inside = np.clip((inside - np.float32(distance)) / np.float32(_SOFTNESS) + 0.5, 0.0, 1.0)
    return gains * (1 - np.float32(light.shadow) * inside)[..., None]


def visible_masks(layers: Sequence[Layer], size: tuple[int, int]) -> np.ndarray:
    """Compute the visible part of every layer, given from back to front.

    A pixel belongs to the frontmost layer that covers more than half of it. For ``size`` see
    :func:`coverage`.

    Returns:
        numpy.ndarray: (N, height, width) bool without overlap.
    """
    width, height = size
    masks = np.zeros((len(layers), height, width), bool)
    free = np.ones((height, width), bool)
    for number in reversed(range(len(layers))):
        masks[number] = (coverage(*layers[number], size) > 0.5) & free
        free &= ~masks[number]
    return masks


def to_uint8(picture: np.ndarray) -> np.ndarray:
    """Convert float32 in [0, 1] to uint8, rounded."""
    return np.clip(picture * 255.0 + 0.5, 0, 255).astype(np.uint8)
