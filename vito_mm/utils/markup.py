"""A document written once, as Markdown and as one HTML page with its pictures inside."""

import base64
import html
import re
from collections.abc import Sequence
from dataclasses import dataclass

_STYLE = """
body{font:1rem/1.5 system-ui,sans-serif;color:#1a1a1a;background:#fff;max-width:64rem;
 margin:1.5rem auto;padding:0 1rem}
h1,h2,h3{line-height:1.25}h2{margin-top:2.2rem;border-bottom:1px solid #ccc}
.wide{overflow-x:auto;margin:1rem 0}
table{border-collapse:collapse;font-variant-numeric:tabular-nums}
th,td{padding:.3rem .8rem;text-align:right;vertical-align:top;white-space:nowrap;
 border-bottom:1px solid #ddd}
th{white-space:normal;vertical-align:bottom;border-bottom:2px solid #666}
th.text,td.text{text-align:left;white-space:normal;overflow-wrap:break-word;max-width:18rem}
tr.strong td{font-weight:600;background:#eef4fb}small{color:#555;font-weight:400}
figure{margin:1rem 0}img{max-width:100%;height:auto}figcaption{color:#444;font-size:.9rem}
pre{white-space:pre-wrap;overflow-wrap:anywhere;background:#f5f5f5;padding:.6rem;font-size:.85rem}
@media print{body{max-width:none;margin:0;font-size:10pt}.wide{overflow:visible}
 figure,tr{break-inside:avoid}h2,h3{break-after:avoid}
 th,td{padding:.15rem .4rem}.wide{font-size:9pt}}
""".strip()


@dataclass(frozen=True)
class Heading:
    """A heading; level 1 is the title."""

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
    """Text to be shown as it is, such as a command or a log."""

    text: str


@dataclass(frozen=True)
class Cell:
    """A cell with something smaller beside it: below it in HTML, in brackets in Markdown."""

    text: str
    note: str = ''


@dataclass(frozen=True)
class Table:
    """A table.

    Attributes:
        header (Sequence[str]): Titles of the columns.
        rows (Sequence[Sequence[str | Cell]]): Cells of each row.
        text (Sequence[int]): Columns that hold text, to the left; others hold numbers. Defaults to
            the first.
        strong (Sequence[int]): Rows that stand out. Defaults to none.
    """

    header: Sequence[str]
    rows: Sequence[Sequence[str | Cell]]
    text: Sequence[int] = (0,)
    strong: Sequence[int] = ()


@dataclass(frozen=True)
class Picture:
    """A PNG. Markdown, which cannot hold it, leaves it out."""

    png: bytes
    caption: str


Block = Heading | Paragraph | Listing | Code | Table | Picture


def to_markdown(blocks: Sequence[Block]) -> str:
    """Write a document as Markdown.

    Args:
        blocks (Sequence[Block]): Its parts in their order; no text in them is taken as markup.

    Returns:
        str: The document.
    """
    kept: list[Block] = []
    for block in reversed([block for block in blocks if not isinstance(block, Picture)]):
        # A heading that had pictures alone below it.
        if isinstance(block, Heading):
            following = kept[-1] if kept else Heading('', 1)
            if isinstance(following, Heading) and following.level <= block.level:
                continue
        kept.append(block)
    return '\n\n'.join(_markdown(block) for block in reversed(kept)) + '\n'


def to_html(title: str, blocks: Sequence[Block]) -> str:
    """Write a document as a page that refers to nothing outside of itself.

    Args:
        title (str): Title of the page.
        blocks (Sequence[Block]): Its parts in their order; no text in them is taken as markup.

    Returns:
        str: The page.
    """
    body = '\n'.join(_html(block) for block in blocks)
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width,initial-scale=1">\n'
        f'<title>{html.escape(title)}</title>\n<style>{_STYLE}</style></head>\n'
        f'<body>\n{body}\n</body></html>\n'
    )


def markdown_escaped(text: str) -> str:
    """Text of one line in which nothing is markup.

    Args:
        text (str): Any text.

    Returns:
        str: The same for Markdown, within a table as well.
    """
    text = ' '.join(text.split())
    # An underscore within a word is none, and a label is easier to read without a backslash.
    text = re.sub(r'([\\`*\[\]<>|~&#$]|(?<![^\W_])_|_(?![^\W_]))', r'\\\1', text)
    # What would begin a list.
    return re.sub(r'^(\d*)([-+.)])(?=\s)', r'\1\\\2', text)


def _markdown(block: Block) -> str:
    match block:
        case Heading(text, level):
            return f'{"#" * level} {markdown_escaped(text)}'
        case Paragraph(text):
            return markdown_escaped(text)
        case Listing(items):
            return '\n'.join(f'- {markdown_escaped(item)}' for item in items)
        case Code(text):
            longest = max(map(len, re.findall('`+', text)), default=0)
            fence = '`' * max(3, longest + 1)
            return f'{fence}text\n{text.rstrip()}\n{fence}'
        case Table():
            marks = ['---' if i in block.text else '---:' for i in range(len(block.header))]
            lines = [[markdown_escaped(title) for title in block.header], marks]
            for index, row in enumerate(block.rows):
                strong = '**' if index in block.strong else ''
                lines.append([_markdown_cell(cell, strong) for cell in row])
            return '\n'.join(f'| {" | ".join(line)} |' for line in lines)
    raise TypeError(f'not a part of a document: {block!r}')


def _markdown_cell(cell: str | Cell, strong: str) -> str:
    cell = Cell(cell) if isinstance(cell, str) else cell
    text = markdown_escaped(cell.text)
    note = f' ({markdown_escaped(cell.note)})' if cell.note else ''
    return f'{strong}{text}{strong}{note}' if text else note.strip()


def _html(block: Block) -> str:
    match block:
        case Heading(text, level):
            return f'<h{level}>{html.escape(text)}</h{level}>'
        case Paragraph(text):
            return f'<p>{html.escape(text)}</p>'
        case Listing(items):
            return f'<ul>{"".join(f"<li>{html.escape(item)}</li>" for item in items)}</ul>'
        case Code(text):
            return f'<pre>{html.escape(text.rstrip())}</pre>'
        case Picture(png, caption):
            data, caption = base64.b64encode(png).decode(), html.escape(caption)
            return (
                f'<figure><img alt="{caption}" src="data:image/png;base64,{data}">'
                f'<figcaption>{caption}</figcaption></figure>'
            )
        case Table():
            kinds = [' class="text"' if i in block.text else '' for i in range(len(block.header))]
            head = (
                f'<th{kind}>{html.escape(title)}</th>'
                for kind, title in zip(kinds, block.header, strict=True)
            )
            lines = [f'<thead><tr>{"".join(head)}</tr></thead><tbody>']
            for index, row in enumerate(block.rows):
                cells = (
                    f'<td{kind}>{_html_cell(cell)}</td>'
                    for kind, cell in zip(kinds, row, strict=True)
                )
                strong = ' class="strong"' if index in block.strong else ''
                lines.append(f'<tr{strong}>{"".join(cells)}</tr>')
            rows = '\n'.join(lines)
            return f'<div class="wide"><table>{rows}\n</tbody></table></div>'
    raise TypeError(f'not a part of a document: {block!r}')


def _html_cell(cell: str | Cell) -> str:
    if isinstance(cell, str):
        return html.escape(cell)
    note = f'<br><small>{html.escape(cell.note)}</small>' if cell.note else ''
    return html.escape(cell.text) + note
