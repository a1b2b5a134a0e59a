"""The examples of the page Features in Python, run as they stand there."""

import doctest

import pytest
import timm
import torch

from tests.helpers.tiny_vito import R18, save, tiny_vito
from vito_mm.miniscenes import make_miniscenes

from .pages import blocks_of, python_blocks

PAGE = 'docs/features_in_python.md'


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder with all that the page names."""
    make_miniscenes(
        tmp_path / 'data/tiny', 'tiny', workers=0, tasks=('videos', 'probe'), progress=False
    )
    (tmp_path / 'work_dirs/first').mkdir(parents=True)
    half = dict(R18, stem_channels=32, base_channels=32)
    save(tmp_path / 'work_dirs/first/iter_1000.pth', *tiny_vito(half, (128, 256)))
    network = timm.create_model('vit_tiny_patch16_224', num_classes=3)
    torch.save(network.state_dict(), tmp_path / 'vit.pth')
    (config,) = python_blocks(PAGE)
    (tmp_path / 'my_config.py').write_text(config.text)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_the_examples_print_what_the_page_says(folder):
    parser = doctest.DocTestParser()
    blocks = [block.text for block in blocks_of(PAGE) if block.language == 'pycon']
    examples = [example for text in blocks for example in parser.get_examples(text)]
    assert len(examples) > 20
    test = doctest.DocTest(examples, {}, PAGE, PAGE, 0, None)
    printed = []
    failed = doctest.DocTestRunner(verbose=False).run(test, out=printed.append).failed
    assert not failed, ''.join(printed)
