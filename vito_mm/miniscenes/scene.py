"""A harder picture: several things over each other, seen by a camera, in one light."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import cv2
import numpy as np

from .render import Pose, SceneObject, coverage, outline_in_image, paint, to_uint8

Layer = tuple[SceneObject, Pose]
"""An object or thing and where it is in the picture."""


@dataclass(frozen=True)
class Camera:
    """Where the camera looks.

    Attributes:
        position: Place in the scene at the centre of the picture, x and y in pixels at zoom 1; the
            middle of the background is (0, 0).
        zoom: How many times larger everything is seen.
        roll: Turn of the picture, in radians.
    """

    position: np.ndarray
    zoom: float = 1.0
    roll: float = 0.0

    def matrix(self, size: tuple[int, int]) -> np.ndarray:
        """Give the map from the scene to the picture.

        Args:
            size: Width and height of the picture, in pixels.

        Returns:
            numpy.ndarray: (2, 3) float64; a place p is seen at ``matrix @ (*p, 1)``.
        """
        c, s = np.cos(self.roll), np.sin(self.roll)
        turn = self.zoom * np.array([[c, -s], [s, c]])
        shift = np.array(size) / 2 - turn @ self.position
        return np.concatenate([turn, shift[:, None]], axis=1)

    def see(self, pose: Pose, size: tuple[int, int]) -> Pose:
        """Give the pose in the picture of something whose pose in the scene is known.

        Args:
            pose: Its pose in the scene.
            size: Width and height of the picture, in pixels.

        Returns:
            Pose: Its pose in the picture.
        """
        matrix = self.matrix(size)
        return replace(
            pose,
            centre=matrix[:, :2] @ pose.centre + matrix[:, 2],
            radius=self.zoom * pose.radius,
            angle=self.roll + pose.angle,
        )


@dataclass(frozen=True)
class Light:
    """The light of a whole picture.

    Attributes:
        gains: (3,) factors of red, green and blue.
        shadow: Darkening where the shadow is full, in [0, 1).
        edge: The soft edge of the shadow: direction to its dark side in radians, and distance
            from the middle of the picture in sides.
    """

    gains: np.ndarray
    shadow: float = 0.0
    edge: tuple[float, float] = (0.0, 0.0)


_SOFTNESS = 0.15  # of the edge of a shadow, in sides


@dataclass(frozen=True)
class Scene:
    """All that is in a picture.

    Attributes:
        background: (H, W, 3) float32 RGB in [0, 1], larger than the picture.
        camera: The camera, for the background; the layers are in the picture already.
        layers: What is in it, from back to front.
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
        alphas: Coverage of each layer, None where it is to be computed. Defaults to None: all.

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
    """Paint a layer where it can be seen, which is mostly a small part of the picture."""
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


def visible_masks(
    layers: Sequence[Layer], size: tuple[int, int], supersampling: int = 4
) -> np.ndarray:
    """Give what is seen of every layer.

    A pixel belongs to the frontmost layer that covers more than half of it.

    Args:
        layers: What is in the picture, from back to front.
        size: Width and height of the picture, in pixels.
        supersampling: See :func:`.render.coverage`. Defaults to 4.

    Returns:
        numpy.ndarray: (N, height, width) bool. They do not overlap.
    """
    width, height = size
    masks = np.zeros((len(layers), height, width), bool)
    free = np.ones((height, width), bool)
    for number in reversed(range(len(layers))):
        masks[number] = (coverage(*layers[number], size, supersampling) > 0.5) & free
        free &= ~masks[number]
    return masks
