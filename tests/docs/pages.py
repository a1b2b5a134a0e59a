"""The commands and the Python code of the pages, and which of them a test runs.

A block of commands is indented or a fence marked ``bash``; other fences name what they hold. What
no test runs stands below a line ``*Needs: ...*`` that tells the reader what it takes.
"""

import re
import shlex
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest
from markdown_it import MarkdownIt

from tests.conftest import REPO

PAGES = tuple(
    str(path.relative_to(REPO))
    for pattern in ('*.md', 'docs/**/*.md', 'configs/**/*.md')
    for path in sorted(REPO.glob(pattern))
    if '_build' not in path.parts
)
SHELL = ('bash', 'sh', 'shell', 'console')
RECORDS = ('docs/results.md',)
"""Pages whose commands are those of runs that took place: they need no mark."""


@dataclass(frozen=True)
class Block:
    """A block of code in a page.

    Attributes:
        page: File, relative to the checkout.
        line: Number of its first line.
        language: What the fence says, ``bash`` for an indented block.
        text: What it holds.
        needs: What the mark before it says, '' if there is none.
    """

    page: str
    line: int
    language: str
    text: str
    needs: str = ''


@dataclass(frozen=True)
class Command:
    """A command in a page, on one line and without its comment."""

    page: str
    line: int
    text: str
    needs: str = ''

    @property
    def words(self) -> list[str]:
        """Its words, as a shell would split them."""
        return shlex.split(self.text)


@cache
def blocks_of(page: str) -> tuple[Block, ...]:
    """All code blocks of a page, but those that Sphinx reads."""
    found, needs = [], ''
    for token in MarkdownIt('commonmark').parse((REPO / page).read_text()):
        if token.type in ('fence', 'code_block') and not token.info.startswith('{'):
            language = token.info if token.type == 'fence' else 'bash'
            found.append(Block(page, token.map[0] + 1, language, token.content, needs))
        if token.type == 'inline':
            mark = re.fullmatch(r'\*Needs: (.+)\*', token.content, re.DOTALL)
            needs = mark[1] if mark else ''
        elif token.type not in ('paragraph_open', 'paragraph_close'):
            needs = ''
    return tuple(found)


@cache
def commands_of(page: str) -> tuple[Command, ...]:
    """All commands of a page."""
    return tuple(command for block in blocks_of(page) for command in _commands(block))


def _commands(block: Block) -> Iterator[Command]:
    if block.language not in SHELL:
        return
    for line in block.text.replace('\\\n', ' ').splitlines():
        words = shlex.shlex(line, posix=True, punctuation_chars=False)
        words.whitespace_split, words.commenters = True, '#'
        command: list[str] = []
        for word in [*words, '&&']:
            if word != '&&':
                command.append(word)
            elif command:
                yield Command(block.page, block.line, shlex.join(command), block.needs)
                command = []


RUN: set[Command] = set()
"""Commands that tests run."""
RUN_CODE: set[Block] = set()
"""Python blocks that tests run."""


def runs(*pages: str, matching: str, count: int) -> Callable:
    """Hand the commands of each page that match to a test, as ``commands``, which runs them.

    Args:
        pages: Files, relative to the checkout.
        matching: Regular expression that the beginning of a command matches.
        count: How many there are in each page.
    """
    found = [[c for c in commands_of(page) if re.match(matching, c.text)] for page in pages]
    for page, commands in zip(pages, found, strict=True):
        assert len(commands) == count, f'{page}: {len(commands)} commands match {matching}'
        RUN.update(commands)
    return pytest.mark.parametrize('commands', found, ids=[Path(page).stem for page in pages])


def python_blocks(page: str, matching: str = '') -> list[Block]:
    """Python blocks of a page in which there is a match; the caller runs them."""
    found = [b for b in blocks_of(page) if b.language == 'python' and re.search(matching, b.text)]
    RUN_CODE.update(found)
    return found


def run_elsewhere(test: str, page: str, matching: str) -> None:
    """Take commands as run by a test of another file.

    Args:
        test: The test, as pytest names it.
        page: File, relative to the checkout.
        matching: Regular expression that the beginning of a command matches.
    """
    file, _, function = test.partition('::')
    assert re.search(rf'^def {function}\(', (REPO / file).read_text(), re.M), f'there is no {test}'
    RUN.update(command for command in commands_of(page) if re.match(matching, command.text))
