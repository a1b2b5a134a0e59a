"""Pictures and text placed by pixels on a sheet."""

from functools import cache
from pathlib import Path

import cv2
import matplotlib
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from vito_mm.utils.atomic import written_aside

TEXT = 13
"""Usual height of letters in pixels."""
GREY = '#666666'
"""Colour of secondary text."""


class Canvas:
    """A white sheet with its origin in the upper left corner; all lengths are in pixels."""

    def __init__(self, width: int, height: int) -> None:
        self.width, self.height = width, height
        self._image = Image.new('RGB', (width, height), 'white')
        self._draw = ImageDraw.Draw(self._image)

    def paste(self, picture: np.ndarray, x: int, y: int) -> None:
        """Put a picture (RGB, uint8, shape (height, width, 3)) on the sheet."""
        self._image.paste(Image.fromarray(picture), (x, y))

    def text(
        self,
        x: float,
        y: float,
        text: str,
        size: int = TEXT,
        colour: str = 'black',
        bold: bool = False,
        anchor: str = 'la',
    ) -> None:
        """Write a line; ``anchor`` says which point of it is placed, as Pillow names it."""
        self._draw.text((x, y), printable(text), colour, _font(size, bold), anchor=anchor)

    def title(self, text: str, margin: int) -> None:
        """Write a title at the top, as much of it as there is room for."""
        size = TEXT + 2
        text = shortened(text, self.width - 2 * margin, size, bold=True)
        self.text(margin, margin, text, size, bold=True)

    def box(self, x: int, y: int, width: int, height: int, colour: str, line: int = 1) -> None:
        """Draw a frame of some thickness around a rectangle, outside of it."""
        corners = (x - line, y - line, x + width + line - 1, y + height + line - 1)
        self._draw.rectangle(corners, outline=colour, width=line)

    def fill(self, x: int, y: int, width: int, height: int, colour: str) -> None:
        """Fill a rectangle."""
        if width > 0:
            self._draw.rectangle((x, y, x + width - 1, y + height - 1), fill=colour)

    def dot(self, x: float, y: float, radius: float, colour: str) -> None:
        """Draw a dot around a point."""
        self._draw.circle((x, y), radius, fill=colour)

    def array(self) -> np.ndarray:
        """The sheet, RGB, uint8, shape (height, width, 3)."""
        return np.array(self._image)


def text_width(text: str, size: int = TEXT, bold: bool = False) -> int:
    """Pixels that a line takes, rounded up."""
    return int(np.ceil(_font(size, bold).getlength(printable(text))))


def shortened(text: str, width: int, size: int = TEXT, bold: bool = False) -> str:
    """Leave out the middle of a line beyond some pixels: names differ in how they begin and end."""
    text = printable(text)
    kept = len(text)
    shorter = text
    while kept > 1 and text_width(shorter, size, bold) > width:
        kept -= 1
        shorter = f'{text[: kept // 2]}...{text[-(kept - kept // 2) :]}'
    return shorter


def wrapped(text: str, width: int, size: int = TEXT) -> list[str]:
    """Break a text into lines of at most so many pixels, at least one."""
    lines: list[str] = []
    for word in text.split():
        if lines and text_width(f'{lines[-1]} {word}', size) <= width:
            lines[-1] += f' {word}'
        else:
            lines.append(word)
    return lines or ['']


def printable(text: str) -> str:
    """Escape characters that the font lacks, such as bytes of file names that are no text."""
    return ''.join(
        char if char.isprintable() and ord(char) < 0x250 else char.encode('unicode_escape').decode()
        for char in text
    )


def png_of(picture: np.ndarray) -> bytes:
    """Content of a PNG file with a picture (RGB, uint8, shape (height, width, 3))."""
    return cv2.imencode('.png', np.ascontiguousarray(picture[..., ::-1]))[1].tobytes()


def write_png(picture: np.ndarray, file: Path) -> None:
    """Write a picture (RGB, uint8, shape (height, width, 3)) atomically; the folder is made."""
    file.parent.mkdir(parents=True, exist_ok=True)
    with written_aside(file) as unfinished:
        unfinished.write_bytes(png_of(picture))


@cache
def _font(size: int, bold: bool) -> ImageFont.FreeTypeFont:
    """The font that comes with matplotlib, so that pictures look alike on every machine."""
    name = 'DejaVuSans-Bold.ttf' if bold else 'DejaVuSans.ttf'
    return ImageFont.truetype(str(Path(matplotlib.get_data_path(), 'fonts', 'ttf', name)), size)
