"""Classes and names: ImageNet's are WordNet's in the classifier's order; files are checked."""

import json
import sys

import pytest

from tests.conftest import ONEDL
from vito_mm.curation.taxonomy import load_taxonomy


def test_imagenet_has_the_names_and_the_order_of_torchvision():
    from torchvision.models._meta import _IMAGENET_CATEGORIES

    taxonomy = load_taxonomy('imagenet')
    assert list(taxonomy.names) == _IMAGENET_CATEGORIES
    assert len(set(taxonomy.names)) == 1000


@pytest.mark.skipif(ONEDL, reason='its mmpretrain spells one name otherwise')
def test_imagenet_has_all_lemmas_of_wordnet():
    info = pytest.importorskip('timm.data').ImageNetInfo('imagenet-1k')
    taxonomy = load_taxonomy('imagenet')
    for index, synonyms in enumerate(taxonomy.synonyms):
        lemmas = info.index_to_description(index).split(', ')
        added = [] if taxonomy.names[index] in lemmas else [taxonomy.names[index]]
        assert list(synonyms) == added + lemmas
        assert bool(added) == (index in (134, 639))
    assert sum(map(len, taxonomy.synonyms)) == 1862


def test_without_mmpretrain_the_remedy_is_named(monkeypatch):
    load_taxonomy.__globals__['_imagenet'].cache_clear()
    monkeypatch.setitem(sys.modules, 'mmpretrain.datasets.categories', None)
    monkeypatch.setitem(sys.modules, 'mmpretrain', None)
    with pytest.raises(ImportError, match=r'pip install "vito_mm\[curation\]"'):
        load_taxonomy('imagenet')


def test_lists_of_timm_have_ids_and_tell_classes_of_one_name_apart():
    pytest.importorskip('timm')
    taxonomy = load_taxonomy('timm:imagenet-22k')
    assert len(set(taxonomy.names)) == len(taxonomy.ids) == 21841
    (bird,) = taxonomy.select(['crane (n02012849)'])
    assert taxonomy.ids[bird] == 'n02012849'
    assert 'crane' in taxonomy.synonyms[bird]
    with pytest.raises(ValueError, match="'timm:imagenet-5': Unknown imagenet subset"):
        load_taxonomy('timm:imagenet-5')


@pytest.mark.parametrize(
    ('name', 'content'),
    [
        ('t.txt', '# pets\ncat,  house  cat, cat\n\nred fox\n  # wild\n縞, stripe\n'),
        ('t.json', '["cat, house cat", "red fox", "縞, stripe"]'),
        ('t.json', '{"cat": ["house cat"], "red fox": [], "縞": ["stripe"]}'),
        (
            't.jsonl',
            '{"name": "cat", "synonyms": ["house cat"]}\n{"name": "red fox"}\n'
            '{"name": "縞", "synonyms": "stripe"}\n',
        ),
        ('t.csv', 'synonyms,name\nhouse cat;cat,cat\n,red fox\nstripe,縞\n'),
    ],
)
def test_files_of_all_forms_give_the_same_classes(tmp_path, name, content):
    (tmp_path / name).write_text(content, encoding='utf-8-sig')
    taxonomy = load_taxonomy(str(tmp_path / name))
    assert taxonomy.names == ('cat', 'red fox', '縞')
    assert taxonomy.synonyms == (('cat', 'house cat'), ('red fox',), ('縞', 'stripe'))
    assert taxonomy.ids is None
    (tmp_path / 'again.json').write_text('["cat, house cat", "red fox", "縞, stripe"]')
    assert load_taxonomy(str(tmp_path / 'again.json')).fingerprint == taxonomy.fingerprint


def test_ids_are_kept_and_may_be_asked_for(tmp_path):
    (tmp_path / 't.csv').write_text('name,id\ncat,n1\nfox,n2\n')
    taxonomy = load_taxonomy(str(tmp_path / 't.csv'))
    assert taxonomy.ids == ('n1', 'n2')
    assert taxonomy.select(['n2']) == [1]
    (tmp_path / 't.json').write_text(json.dumps([dict(name='cat', id=0), dict(name='fox', id=1)]))
    assert load_taxonomy(str(tmp_path / 't.json')).ids == ('0', '1')


@pytest.mark.parametrize(
    ('name', 'content', 'message'),
    [
        ('t.txt', '# nothing\n\n', 't.txt lists no class'),
        ('t.txt', 'cat\ndog\ncat, kitty\n', "line 3: the class 'cat' is there twice, .*line 1"),
        ('t.txt', 'cat\n😀 !\n', 't.txt, line 2: a class without a name'),
        ('t.json', '{"cat": [], "cat": ["kitty"]}', "t.json: .*'cat' is there twice"),
        ('t.json', '["cat"', 't.json: cannot be read as JSON .*line 1'),
        ('t.json', '"cat"', 't.json: a list or an object'),
        ('t.json', '{"cat": 3}', "class 'cat': synonyms are a list of text, not 3"),
        ('t.json', '["cat", 3]', 't.json, class 2: an object with "name" is wanted, not 3'),
        ('t.json', '[{"name": 3}]', 't.json, class 1: the name of a class is text, not 3'),
        ('t.jsonl', '{"name": "cat"}\n{"nome": "dog"}\n', 't.jsonl, line 2: an object with "name"'),
        ('t.jsonl', '{"name": "cat"\n', 't.jsonl, line 1: not JSON'),
        ('t.csv', 'nome\ncat\n', """t.csv: the header has no column "name" but .'nome'"""),
        ('t.csv', 'name,id\ncat,1\ndog,\n', 't.csv, line 3: no id, which other classes have'),
        ('t.yaml', 'cat', "give 'imagenet', .* or a file that ends in .txt, .json"),
    ],
)
def test_what_is_wrong_in_a_file_is_named_with_its_line(tmp_path, name, content, message):
    (tmp_path / name).write_text(content)
    with pytest.raises(ValueError, match=message):
        load_taxonomy(str(tmp_path / name))


def test_other_encodings_and_missing_files_are_named(tmp_path):
    for name, content in (('t.txt', 'Käfer'), ('t.csv', 'name\nKäfer'), ('t.json', '["Käfer"]')):
        (tmp_path / name).write_bytes(content.encode('latin-1'))
        with pytest.raises(ValueError, match=rf'{name}: not UTF-8'):
            load_taxonomy(str(tmp_path / name))
    with pytest.raises(ValueError, match=r'there is no taxonomy .*nowhere\.txt'):
        load_taxonomy(str(tmp_path / 'nowhere.txt'))
    with pytest.raises(ValueError, match="taxonomy 'imagenet1k': give 'imagenet'"):
        load_taxonomy('imagenet1k')


def test_the_fingerprint_is_that_of_classes_names_and_order(tmp_path):
    found = set()
    for text in ('cat, kitty\ndog\n', 'dog\ncat, kitty\n', 'cat\ndog\n', 'cat, kitty, dog\n'):
        (tmp_path / 'c.txt').write_text(text)
        found.add(load_taxonomy(str(tmp_path / 'c.txt')).fingerprint)
    assert len(found) == 4


def test_classes_are_selected_by_display_name_first_and_unknown_ones_named():
    taxonomy = load_taxonomy('imagenet')

    def names(*wanted: str) -> list[str]:
        return [taxonomy.names[index] for index in taxonomy.select(wanted)]

    assert names('goldfish', 'tabby') == ['goldfish', 'tabby']
    assert names('crane') == ['crane']
    assert names('Cardigan') == ['Cardigan']
    assert names('cardigan') == ['cardigan']
    assert names('CARDIGAN') == ['Cardigan', 'cardigan']
    assert names('panther') == ['cougar', 'jaguar']
    assert names('Carassius  auratus', 'goldfish') == ['goldfish']
    assert taxonomy.select([]) == []
    with pytest.raises(ValueError, match=r"has no classes 'goldfsh' .*mean 'goldfish'.*'qqq'$"):
        taxonomy.select(['tabby', 'goldfsh', 'qqq'])
    with pytest.raises(ValueError, match=r"no class 'crame' .*'crane'"):
        taxonomy.select(['crame'])
