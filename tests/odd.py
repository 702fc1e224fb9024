"""Odd values, and documents in which one or two things are odd."""

import copy
import math

from hypothesis import strategies as st

ODD_TEXTS = st.text(max_size=8) | st.sampled_from([
    '', '/', '..', '~', '~nobody/x', '~\0', 'a' * 5000, '\0', '\ud800', 'nan', '1e999', '0x10',
    '$(var a)', '// [', 'file://[', 'file:///~nobody', 'package://', 'package://muon_ad_nodes/../..',
])  # fmt: skip

# What a YAML file can hold that a reader may not think of.
ODD = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-3, 20000),
    st.sampled_from([2**31, 2**63, 2**64, -(2**63) - 1, 10**400]),
    st.floats(allow_nan=True, allow_infinity=True),
    ODD_TEXTS,
    st.dates(),
    st.datetimes(),
    st.binary(max_size=4),
    st.recursive(
        st.integers(-2, 2), lambda inner: st.lists(inner, max_size=3), max_leaves=6
    ),
    st.dictionaries(
        st.one_of(st.text(max_size=3), st.integers(), st.none()), st.integers(), max_size=3
    ),
)

# Texts that are YAML in odd ways, or nearly.
YAML_TEXTS = st.one_of(
    st.text(),
    st.sampled_from([
        '2001-99-99', '!!int', '!!int ""', '!!bool x', '!!float []', '!!timestamp x',
        '!!python/object/apply:os.system [ls]', '&a [*a]', '? {a: b}\n: c', '[' * 2000,
        'a: ' * 300, '!!set {a, b}', '!!omap [a: 1]', '!!binary "*"', '\t', '---\n---\n', '*a',
        '&a [1,1,1,1,1,1]\n', '1_0:99:99.9', '0o9', '.inf', '!!null x', '!!pairs [1]',
        'a: &a [x,x,x,x,x,x,x,x,x]\nb: &b [*a,*a,*a,*a,*a,*a,*a,*a,*a]\n'
        'c: &c [*b,*b,*b,*b,*b,*b,*b,*b,*b]\nd: &d [*c,*c,*c,*c,*c,*c,*c,*c,*c]\n'
        'e: &e [*d,*d,*d,*d,*d,*d,*d,*d,*d]\nf: &f [*e,*e,*e,*e,*e,*e,*e,*e,*e]\n'
        'g: &g [*f,*f,*f,*f,*f,*f,*f,*f,*f]\nh: &h [*g,*g,*g,*g,*g,*g,*g,*g,*g]\n'
        'i: [*h,*h,*h,*h,*h,*h,*h,*h,*h]\n',
    ]),
    st.text('[]{}:,-?&*!|>\'"%@`# \n\tab1.', max_size=60),
)  # fmt: skip


def places(document: object, here: tuple = ()) -> list[tuple]:
    """The paths of all values in nested lists and dicts."""
    found = [here] if here else []
    items = document.items() if isinstance(document, dict) else enumerate(document) \
        if isinstance(document, list) else ()
    for key, value in items:
        found += places(value, (*here, key))
    return found


@st.composite
def spoilt(draw, document: object) -> object:
    """A copy of the document in which one or two values are odd, missing or one too many."""
    spoilt = copy.deepcopy(document)
    for _ in range(draw(st.integers(1, 2))):
        *way, last = draw(st.sampled_from(places(spoilt)))
        parent = spoilt
        for key in way:
            parent = parent[key]
        change = draw(st.sampled_from(['replace', 'replace', 'replace', 'remove', 'add']))
        if change == 'replace':
            parent[last] = draw(ODD)
        elif change == 'remove':
            del parent[last]
        elif isinstance(parent, dict):
            parent[draw(st.one_of(st.text(max_size=5), st.integers(), st.none()))] = draw(ODD)
        else:
            parent.append(draw(ODD))
        if not places(spoilt):
            break
    return spoilt


def is_finite(*values: float) -> bool:
    """Whether all of the numbers are finite."""
    return all(math.isfinite(value) for value in values)
