"""Reports: Markdown, and names and messages that stay text whatever they hold."""

import csv
import html.parser
import io
from pathlib import Path

import pytest

from vito_mm.utils.report import (
    Cell,
    Code,
    Heading,
    Listing,
    Paragraph,
    Picture,
    Table,
    Video,
    to_csv,
    to_html,
    to_markdown,
)
from vito_mm.videos import VideoReadError

NAMES = [
    '<script>alert(1)</script>.mp4',
    '"><img src=http://127.0.0.1/x onerror=alert(1)>.mp4',
    'it\'s & "so".mp4',
    'two\nlines\r.mp4',
    '=HYPERLINK("http://127.0.0.1/","x").mp4',
    '+1+1|cmd.mp4',
    '-2+3.mp4',
    '@SUM(1;1).mp4',
    '\t=1+1.mp4',
    '</pre><b>.mp4',
    '{{ 7 * 7 }}{% raw %}.mp4',
]


class _Tags(html.parser.HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.tags, self.texts = [], []

    def handle_starttag(self, tag, attrs) -> None:
        self.tags.append((tag, [name for name, _ in attrs]))

    def handle_data(self, data) -> None:
        self.texts.append(data)


def page_of(name: str) -> _Tags:
    blocks = [
        Heading(name),
        Paragraph(name),
        Listing([name]),
        Code(name),
        Table([name], [[name], [Cell(name, name)]]),
        Picture(b'', name),
        Video(name, name),
    ]
    tags = _Tags()
    tags.feed(to_html(name, blocks))
    return tags


@pytest.mark.parametrize('name', NAMES)
def test_no_name_is_markup(name):
    plain, named = page_of('plain'), page_of(name)
    assert named.tags == plain.tags
    assert len(named.texts) == len(plain.texts)
    markdown = to_markdown(name, [Table(['x'], [[name]]), Listing([name]), Video(name, name)])
    assert len(markdown.splitlines()) == 9
    assert '<' not in markdown.replace('\\<', '')


def test_no_cell_of_csv_is_a_formula():
    rows = [['path', 'reason'], *([name, 3.5] for name in NAMES)]
    read = list(csv.reader(io.StringIO(to_csv(rows), newline='')))
    assert [cell.lstrip("'") for cell, _ in read[1:]] == NAMES
    assert not [cell for row in read for cell in row if cell.startswith(('=', '+', '-', '@', '\t'))]
    assert to_csv([[-1.5, '-1.5', '-', None]]) == "-1.5,-1.5,'-,\n"


def test_all_tables_are_written_by_the_same_function():
    package = Path(__file__).parents[2] / 'vito_mm'
    writers = [
        str(file.relative_to(package))
        for file in package.rglob('*.py')
        if 'csv.writer(' in (text := file.read_text()) or 'DictWriter(' in text
    ]
    assert writers == ['utils/report.py']


def test_an_error_is_one_line_whatever_the_name():
    for name in [*NAMES, 'bytes\udcff.mp4', 'clear\x1b[2Jscreen.mp4']:
        text = str(VideoReadError(name, 'no such file'))
        assert text.isprintable()
        text.encode()


def test_markdown_leaves_out_headings_whose_pictures_it_cannot_hold():
    picture = Picture(b'', 'caption')
    blocks = [
        *(Paragraph('1. text'), Heading('empty'), Heading('too', 3), picture),
        *(Heading('full'), Heading('sub', 3), Table(('a', 'b'), [('x', '-1.5')]), Heading('end')),
        picture,
    ]
    assert to_markdown('title', blocks) == (
        '# title\n\n1\\. text\n\n## full\n\n### sub\n\n| a | b |\n| --- | ---: |\n| x | -1.5 |\n'
    )


def test_a_video_is_shown_by_its_address():
    video = Video('videos/a b/50%.mp4', 'caption')
    assert 'src="videos/a%20b/50%25.mp4"' in to_html('t', [video])
    assert to_markdown('t', [video]) == '# t\n\n[caption](videos/a%20b/50%25.mp4)\n'


def test_a_fence_is_longer_than_what_it_holds():
    assert to_markdown('t', [Code('````')]) == '# t\n\n`````text\n````\n`````\n'
    assert '<pre>&lt;b&gt;</pre>' in to_html('t', [Code('<b>')])
