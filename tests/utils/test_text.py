"""Durations and hints as people read them."""

import pytest

from vito_mm.utils.text import near_text, time_text


@pytest.mark.parametrize(
    ('seconds', 'text'),
    [
        (0, '0 s'),
        (99.4, '99 s'),
        (100, '2 min'),
        (99 * 60, '99 min'),
        (99.6 * 60, '1 h 40 min'),
        (3 * 3600 + 59.7 * 60, '4 h 00 min'),
        (50 * 3600, '50 h 00 min'),
    ],
)
def test_a_duration_has_no_digits_that_mean_nothing(seconds, text):
    assert time_text(seconds) == text


def test_a_hint_names_what_is_near_and_nothing_else():
    known = ['Tabby cat', 'tabby  cat', 'pascal', 'coco', 'coco2', 'coco3', 'coco4']
    assert near_text('pascl', known) == " (did you mean 'pascal'?)"
    assert near_text('qqq', known) == near_text('pascal', []) == ''
    assert near_text('coc', known).count(' or ') == 2
    assert near_text('TABBY CAT', known) == ''
    folded = near_text('TABBY CAT', known, lambda name: ' '.join(name.lower().split()))
    assert folded == " (did you mean 'Tabby cat'?)"
