"""Reports: a document as an HTML page and as Markdown, and tables as CSV."""

import base64
import csv
import io
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

from .atomic import written_aside

_FORMULA = ('=', '+', '-', '@', '\t', '\r')


@dataclass(frozen=True)
class Heading:
    """A heading below the title."""

    text: str
    level: int = 2


@dataclass(frozen=True)
class Paragraph:
    """Running text."""

    text: str


@dataclass(frozen=True)
class Listing:
    """A list of short texts."""

    items: Sequence[str]


@dataclass(frozen=True)
class Code:
    """Preformatted text, such as commands or a log."""

    text: str


@dataclass(frozen=True)
class Cell:
    """A table cell with a smaller note: below the text in HTML, in brackets in Markdown."""

    text: str
    note: str = ''


@dataclass(frozen=True)
class Table:
    """A table."""

    header: Sequence[str]
    rows: Sequence[Sequence[str | Cell]]
    text: Sequence[int] = (0,)  # columns with text, aligned left; others hold numbers
    strong: Sequence[int] = ()  # highlighted rows


@dataclass(frozen=True)
class Picture:
    """A PNG, embedded in HTML and omitted from Markdown."""

    png: bytes
    caption: str

    @property
    def base64(self) -> str:
        """The content for a data URL."""
        return base64.b64encode(self.png).decode()


@dataclass(frozen=True)
class Video:
    """A video next to the page, which shows it: a link in Markdown."""

    file: str  # from the folder of the page
    caption: str

    @property
    def address(self) -> str:
        """The file as a relative address."""
        return quote(self.file, errors='surrogateescape')


Block = Heading | Paragraph | Listing | Code | Table | Picture | Video


def write_document(
    folder: Path,
    title: str,
    blocks: Sequence[Block],
    name: str = 'report',
    others: Mapping[str, str | bytes] | None = None,
) -> Path:
    """Write a document as ``NAME.html`` and ``NAME.md``, atomically.

    Args:
        folder (Path): Created if needed.
        title (str): Title.
        blocks (Sequence[Block]): Parts in order. No text in them is interpreted as markup.
        name (str): Stem of the files. Defaults to 'report'.
        others (Mapping[str, str | bytes], optional): Further files by name, such as tables that
            :func:`to_csv` wrote. A name ``NAME.md`` replaces the Markdown. Defaults to None.

    Returns:
        Path: The page.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    files = {f'{name}.md': to_markdown(title, blocks), **(others or {})}
    for file, content in (files | {f'{name}.html': to_html(title, blocks)}).items():
        with written_aside(folder / file) as unfinished:
            if isinstance(content, str):
                # Labels and messages may hold what UTF-8 cannot, such as half a surrogate pair.
                content = content.encode(errors='backslashreplace')
            unfinished.write_bytes(content)
    return folder / f'{name}.html'


def to_html(title: str, blocks: Sequence[Block]) -> str:
    """Render a document as one page, without references but to the videos next to it."""
    from jinja2 import Environment, FileSystemLoader

    environment = Environment(loader=FileSystemLoader(Path(__file__).parent), autoescape=True)
    page = environment.get_template('report.html.jinja')
    return page.render(title=title, blocks=blocks) + '\n'


def to_markdown(title: str, blocks: Sequence[Block]) -> str:
    """Render a document as Markdown, without pictures and without headings left empty by them."""
    kept: list[Block] = []
    for block in reversed([block for block in blocks if not isinstance(block, Picture)]):
        if isinstance(block, Heading):
            following = kept[-1] if kept else Heading('', 1)
            if isinstance(following, Heading) and following.level <= block.level:
                continue
        kept.append(block)
    return '\n\n'.join(map(_markdown, [Heading(title, 1), *reversed(kept)])) + '\n'


def _markdown(block: Block) -> str:
    match block:
        case Heading(text, level):
            return f'{"#" * level} {_escaped(text)}'
        case Paragraph(text):
            return _escaped(text)
        case Listing(items):
            return '\n'.join(f'- {_escaped(item)}' for item in items)
        case Code(text):
            longest = max(map(len, re.findall('`+', text)), default=0)
            fence = '`' * max(3, longest + 1)
            return f'{fence}text\n{text.rstrip()}\n{fence}'
        case Video(_, caption):
            return f'[{_escaped(caption)}]({block.address})'
        case Table():
            marks = ['---' if i in block.text else '---:' for i in range(len(block.header))]
            lines = [[_escaped(title) for title in block.header], marks]
            for index, row in enumerate(block.rows):
                strong = '**' if index in block.strong else ''
                lines.append([_markdown_cell(cell, strong) for cell in row])
            return '\n'.join(f'| {" | ".join(line)} |' for line in lines)
    raise TypeError(f'not a part of a document: {block!r}')


def _markdown_cell(cell: str | Cell, strong: str) -> str:
    cell = Cell(cell) if isinstance(cell, str) else cell
    text = _escaped(cell.text)
    note = f' ({_escaped(cell.note)})' if cell.note else ''
    return f'{strong}{text}{strong}{note}' if text else note.strip()


def _escaped(text: str) -> str:
    """Escape one line of text for Markdown, tables included."""
    text = ' '.join(text.split())
    # Underscores within words are not markup, and labels are easier to read without backslashes.
    text = re.sub(r'([\\`*\[\]<>|~&#$]|(?<![^\W_])_|_(?![^\W_]))', r'\\\1', text)
    # What would begin a list.
    return re.sub(r'^(\d*)([-+.)])(?=\s)', r'\1\\\2', text)


def to_csv(rows: Iterable[Sequence[Any]]) -> str:
    """Format a table as CSV without formulas.

    Spreadsheets evaluate text that begins with ``=``, ``+``, ``-``, ``@``, a tab or a carriage
    return, as file names and messages may. Such text gets an apostrophe in front, unless it is a
    number. Null characters, which not every reader of CSV takes, are left out. Lines end in a
    newline alone.
    """
    text = io.StringIO()
    lines = ([f"'{cell}" if _is_formula(cell) else cell for cell in row] for row in rows)
    lines = ([c.replace('\0', '') if isinstance(c, str) else c for c in line] for line in lines)
    csv.writer(text, lineterminator='\n').writerows(lines)
    return text.getvalue()


def _is_formula(cell: Any) -> bool:
    if not isinstance(cell, str) or not cell.startswith(_FORMULA):
        return False
    try:
        float(cell)
    except ValueError:
        return True
    return False
