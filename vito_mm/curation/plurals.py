"""Plurals and singulars of English nouns, all that may be meant.

The library inflect gives one plural a word, so that it lacks 5 of the 46 pairs of the tests
(monarchs, goldfishes), and makes singulars of 8 of 20 words that are none ("bu" of "bus").
"""

_IRREGULAR = dict(
    man='men',
    woman='women',
    child='children',
    person='people',
    mouse='mice',
    dormouse='dormice',
    titmouse='titmice',
    louse='lice',
    goose='geese',
    foot='feet',
    tooth='teeth',
    ox='oxen',
    die='dice',
    penny='pence',
    quiz='quizzes',
    phenomenon='phenomena',
    criterion='criteria',
    bacterium='bacteria',
    genus='genera',
    octopus='octopodes',
)
"""Plurals next to the regular one."""

_NOT_MEN = (
    *('human', 'german', 'roman', 'norman', 'shaman', 'talisman', 'ottoman', 'caiman', 'cayman'),
    *('doberman', 'pullman', 'brahman', 'ataman', 'hetman', 'desman', 'toman', 'dolman'),
)
_VES = (
    *('wolf', 'leaf', 'loaf', 'calf', 'half', 'elf', 'scarf', 'hoof', 'thief', 'sheaf', 'dwarf'),
    *('wharf', 'knife', 'life', 'wife'),
)
"""Endings that have -ves: not all in -f have, and `safe` or `cafe` would make another word."""

_NOT_PLURAL = frozenset(
    ('lens', 'gas', 'canvas', 'atlas', 'pancreas', 'series', 'species', 'news', 'corps', 'chess')
)
ONLY_PLURAL = frozenset(
    ('arms', 'bars', 'customs', 'glasses', 'goods', 'shades', 'shorts', 'trunks', 'pants', 'tights')
)
"""Words that mean something else in the singular, where no other word goes before them."""

_LATIN = (
    *(('us', 'i'), ('sis', 'ses'), ('ium', 'ia'), ('ex', 'ices'), ('ix', 'ices')),
    *(('eau', 'eaux'), ('a', 'ae')),
)
_SINGULARS = {plural: word for word, plural in _IRREGULAR.items()}


def plurals_of(word: str) -> list[str]:
    """List the spellings that the plural of an English noun may have.

    Several rules may apply (``'octopuses'``, ``'octopi'``); a spelling that nobody uses does no
    harm when it is looked for. A word of other letters than a to z has none.
    """
    if not (word.isascii() and word.isalpha()):
        return []
    found = [_IRREGULAR[word]] if word in _IRREGULAR else []
    if word.endswith('man') and not word.endswith(_NOT_MEN):
        found.append(word[:-2] + 'en')
    if word.endswith(_VES):
        found.append(word.removesuffix('e').removesuffix('f') + 'ves')
    if len(word) > 4:
        found += [word[: -len(end)] + to for end, to in _LATIN if word.endswith(end)]
    if word.endswith('y') and word[-2:-1] not in 'aeiou':
        found.append(word[:-1] + 'ies')
    elif word.endswith(('s', 'x', 'z', 'sh')):
        found.append(word + 'es')
    elif word.endswith(('ch', 'o')):  # finches and monarchs, potatoes and flamingos
        found += [word + 'es', word + 's']
    else:
        found.append(word + 's')
    return found


def singulars_of(word: str) -> list[str]:
    """List the spellings that an English plural in lower case may have in the singular.

    Words that do not look like a plural have none, such as ``'glass'``, ``'bus'``, ``'iris'`` or
    ``'lens'``, nor do Latin plurals: ``'mini'`` is none.
    """
    if not (word.isascii() and word.isalpha()):
        return []
    if word in _SINGULARS:
        return [_SINGULARS[word]]
    if word.endswith('men') and len(word) > 4:
        return [word[:-2] + 'an']
    if len(word) < 4 or word in _NOT_PLURAL or not word.endswith('s'):
        return []
    if word.endswith('ves'):
        bases = [word[:-3] + 'f', word[:-3] + 'fe']
        return [base for base in bases if base.endswith(_VES)] + [word[:-1]]
    if word.endswith('ies'):
        return [word[:-3] + 'y', word[:-1]]
    if word.endswith('ses'):  # houses, buses and oases
        return [word[:-1], word[:-2], word[:-2] + 'is']
    if word.endswith(('ches', 'shes', 'xes', 'zes', 'oes')):
        return [word[:-2], word[:-1]]
    return [] if word.endswith(('ss', 'us', 'is')) else [word[:-1]]
