"""The commands and the Python code of the pages.

A block of commands is indented or a fence marked ``bash``; other fences name what they hold.
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
    if not {'_build', 'rooms'} & set(path.parts)
)
SHELL = ('bash', 'sh', 'shell', 'console')


@dataclass(frozen=True)
class Block:
    """A block of code: its page, first line, language (``bash`` if indented) and text."""

    page: str
    line: int
    language: str
    text: str


@dataclass(frozen=True)
class Command:
    """A command, on one line and without its comment, and where it is."""

    page: str
    line: int
    text: str

    @property
    def words(self) -> list[str]:
        """Its words, as a shell would split them."""
        return shlex.split(self.text)


@cache
def blocks_of(page: str) -> tuple[Block, ...]:
    """All code blocks of a page, but those that Sphinx reads."""
    return tuple(
        Block(page, token.map[0] + 1, token.info or 'bash', token.content)
        for token in MarkdownIt('commonmark').parse((REPO / page).read_text())
        if token.type in ('fence', 'code_block') and not token.info.startswith('{')
    )


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
                yield Command(block.page, block.line, shlex.join(command))
                command = []


RUN: set[Command] = set()
"""Commands that tests run."""


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
    """Python blocks of a page in which there is a match."""
    return [b for b in blocks_of(page) if b.language == 'python' and re.search(matching, b.text)]
