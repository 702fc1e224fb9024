"""Pairing by stamp, against every way there is to pair, and against everything that goes wrong."""

from itertools import product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings
from hypothesis import strategies as st

from muon_ad import sync
from muon_ad.sync import JUMP_NS
from muon_ad.sync import Synchronizer

MS = 1_000_000
PERIOD = 33 * MS
BEGIN = 1_000 * MS
LONG = JUMP_NS // 2     # a lookahead or patience that no recording here exceeds


def feasible(streams: dict[str, list[int]], slop: int, optional=()) -> list[frozenset]:
    """Every set there is, as (stream, stamp) pairs, whether or not they exclude each other."""
    choices = [
        [(name, stamp) for stamp in stamps] + ([None] if name in optional else [])
        for name, stamps in streams.items()
    ]
    sets = (frozenset(filter(None, members)) for members in product(*choices))
    return [members for members in sets if skew(members) <= slop]


def skew(members) -> int:
    stamps = [stamp for _, stamp in members]
    return max(stamps) - min(stamps)


def worth(members, slop: int, needed: int) -> int:
    return (slop + 1) * (1 + len(members) - needed) - skew(members)


def best_worth(sets: list[frozenset], slop: int, needed: int) -> int:
    """The greatest total worth of sets that share no message, by trying all of them."""
    if not sets:
        return 0
    first, rest = sets[0], sets[1:]
    apart = [other for other in rest if not first & other]
    taken = worth(first, slop, needed) + best_worth(apart, slop, needed)
    return taken if len(apart) == len(rest) else max(taken, best_worth(rest, slop, needed))


def most_sets(sets: list[frozenset]) -> int:
    return best_worth(sets, 0, 0) if not sets else max(
        1 + most_sets([other for other in sets[1:] if not sets[0] & other]), most_sets(sets[1:])
    )


def run(synchronizer: Synchronizer, arrivals) -> list:
    """Add all, then say that no more will come; check what must hold at every step."""
    found = []
    for stream, stamp in arrivals:
        found += synchronizer.add(stream, stamp, (stream, stamp))
        check_counts(synchronizer)
    found += synchronizer.flush()
    check_counts(synchronizer)
    assert not any(synchronizer.waiting(name) for name in {name for name, _ in arrivals})
    assert len(found) == synchronizer.sets
    return found


def check_counts(synchronizer: Synchronizer) -> None:
    for stream in synchronizer._streams:
        counts, waiting = synchronizer.counts(stream.name), synchronizer.waiting(stream.name)
        assert counts.received == counts.matched + counts.unmatched + waiting
        assert len(stream.stamps) <= synchronizer._queue_size


def members_of(found) -> list[frozenset]:
    for matched in found:
        assert all(matched.messages[name] == (name, at) for name, at in matched.stamps.items())
    return [frozenset(matched.stamps.items()) for matched in found]


@st.composite
def in_order(draw, streams, longest: int, least: int = 1, most: int = 60):
    """Streams of ascending stamps (ms), the first step of each its smallest."""
    made = {}
    for name in streams:
        steps = draw(st.lists(st.integers(least, most), max_size=longest - 1))
        begin = draw(st.integers(0, 60))
        stamps = np.cumsum([begin, *sorted(steps)[:1], *steps[1:]])
        made[name] = [BEGIN + int(stamp) * MS for stamp in stamps]
    return made


@st.composite
def interleaved(draw, streams: dict[str, list[int]]):
    """An order of arrival in which each stream keeps its own."""
    order = draw(st.permutations([name for name, stamps in streams.items() for _ in stamps]))
    left = {name: iter(stamps) for name, stamps in streams.items()}
    return [(name, next(left[name])) for name in order]


@given(st.data(), st.integers(1, 70), st.sampled_from([('a', 'b'), ('a', 'b', 'c')]))
@settings(max_examples=300, deadline=None)
def test_with_lookahead_the_result_is_the_best_of_all(data, slop, names):
    """What is decided at once, before all is known, is never regretted."""
    streams = data.draw(in_order(names, 5 if len(names) == 2 else 4))
    arrivals = data.draw(interleaved(streams))
    slop *= MS
    made = Synchronizer(names, slop, queue_size=50, patience=LONG, lookahead=LONG)
    sets = members_of(run(made, arrivals))
    total = sum(worth(members, slop, len(names)) for members in sets)
    assert total == best_worth(feasible(streams, slop), slop, len(names))


@given(st.data(), st.integers(1, 70))
@settings(max_examples=200, deadline=None)
def test_with_an_optional_stream_too(data, slop):
    names = ('a', 'b', 'c')
    streams = data.draw(in_order(names, 3))
    arrivals = data.draw(interleaved(streams))
    slop *= MS
    made = Synchronizer(
        names, slop, optional=['c'], queue_size=50, patience=LONG, lookahead=LONG
    )
    # An optional stream is waited for once it has delivered.
    arrivals.sort(key=lambda arrival: arrival != ('c', streams['c'][0]))
    sets = members_of(run(made, arrivals))
    total = sum(worth(members, slop, 2) for members in sets)
    assert total == best_worth(feasible(streams, slop, optional=['c']), slop, 2)


@given(st.data(), st.integers(1, 16), st.sampled_from([('a', 'b'), ('a', 'b', 'c')]))
@settings(max_examples=200, deadline=None)
def test_where_no_message_fits_two_sets_every_set_is_found(data, slop, names):
    streams = data.draw(in_order(names, 5, least=2 * slop + 1))
    arrivals = data.draw(interleaved(streams))
    slop *= MS
    made = Synchronizer(names, slop, queue_size=50, patience=LONG)
    sets = feasible(streams, slop)
    assert set(members_of(run(made, arrivals))) == set(sets)
    assert made.sets == most_sets(sets)


MESS = st.lists(
    st.tuples(
        st.sampled_from('abc'),
        st.one_of(
            st.integers(-1, 12).map(lambda n: BEGIN + n * 17 * MS),   # repeats, goes back
            st.integers(0, 400 * MS).map(lambda ns: BEGIN + ns),
            st.sampled_from([0, -5, 1, BEGIN + 10 * JUMP_NS, BEGIN + 10 * JUMP_NS + 5 * MS]),
        ),
    ),
    max_size=60,
)


@given(
    MESS, st.integers(0, 60), st.integers(1, 5), st.integers(1, 300),
    st.sampled_from([(), ('b',), ('b', 'c')]), st.sampled_from([0, 20, 200]),
)
@settings(max_examples=400, deadline=None)
def test_whatever_comes_counts_add_up_and_sets_are_sets(
    arrivals, slop, queue_size, patience, optional, lookahead
):
    made = Synchronizer(
        'abc', slop * MS, optional=optional, queue_size=queue_size, patience=patience * MS,
        lookahead=lookahead * MS,
    )
    sets = members_of(run(made, arrivals))
    assert all(skew(members) <= slop * MS for members in sets)
    needed = set('abc') - set(optional)
    assert all(needed <= {name for name, _ in members} for members in sets)
    for name in 'abc':
        used = [stamp for members in sets for at, stamp in members if at == name]
        assert made.counts(name).matched == len(used)
        if not made.resets:
            assert used == sorted(set(used))    # no message twice, and none overtakes


def regular(period: float, count: int, phase: float = 0.0) -> list[int]:
    return [int(BEGIN + phase + period * index) for index in range(count)]


def merged(delays: dict[str, float], **streams: list[int]) -> list[tuple[str, int]]:
    """All messages in the order in which they arrive, each stream with its delay."""
    arrivals = [
        (stamp + delays.get(name, 0), name, stamp)
        for name, stamps in streams.items() for stamp in stamps
    ]
    return [(name, stamp) for _, name, stamp in sorted(arrivals)]


def test_sets_come_with_their_last_message():
    made = Synchronizer('ab', 10 * MS)
    pairs = [(a, a + 3 * MS) for a in regular(PERIOD, 20)]
    # The first two teach it how soon messages follow each other.
    assert len(run(made, [each for a, b in pairs[:2] for each in (('a', a), ('b', b))])) == 2
    for a, b in pairs[2:]:
        assert made.add('a', a, None) == []
        found, = made.add('b', b, None)
        assert (found.stamp, found.stamps, found.skew) == (a, {'a': a, 'b': b}, 3 * MS)


def test_where_partners_are_ambiguous_a_set_comes_one_message_later():
    made = Synchronizer('ab', 25 * MS)
    latest = 0
    for stream, stamp in merged({}, a=regular(PERIOD, 40), b=regular(PERIOD, 40, 15 * MS)):
        for found in made.add(stream, stamp, None):
            latest = max(latest, stamp - max(found.stamps.values()))
    assert made.sets >= 38
    assert latest <= PERIOD


def test_the_nearest_is_taken_and_not_the_first():
    """A generous slop does not bind the streams to what happened to come first."""
    made = Synchronizer('ab', 100 * MS)
    found = run(made, merged({}, a=regular(PERIOD, 30), b=regular(PERIOD, 30, 31 * MS)))
    assert sorted(each.skew for each in found)[:27] == [2 * MS] * 27


def rolling(seed: int, jitter_ms: float, count: int = 2000) -> dict[str, list[int]]:
    """Two cameras at almost the same rate, whose stamps are taken on arrival."""
    noise = np.random.default_rng(seed)
    return {
        name: [
            int(BEGIN + period * index + noise.normal(0, jitter_ms * MS))
            for index in range(count)
        ]
        for name, period in (('a', 1e9 / 30), ('b', 1e9 / 29.97))
    }


@pytest.mark.parametrize('delay, jitter_ms, most', [(0, 2.0, 6), (45 * MS, 1.0, 4)])
def test_cameras_half_a_period_apart_keep_their_partners(delay, jitter_ms, most):
    """Two turns of the phase leave one over each; a nearest match leaves one with each jitter."""
    made = Synchronizer('ab', 25 * MS)
    run(made, merged({'b': delay}, **rolling(2, jitter_ms)))
    assert made.counts('a').unmatched + made.counts('b').unmatched <= most


def test_a_dropped_message_costs_its_partner_and_no_more():
    a, b = regular(PERIOD, 60), regular(PERIOD, 60, 4 * MS)
    del b[20], b[40:42]
    made = Synchronizer('ab', 12 * MS)
    run(made, merged({}, a=a, b=b))
    assert made.sets == 57
    assert (made.counts('a').no_partner, made.counts('b').unmatched) == (3, 0)


def test_a_faster_stream_gives_its_nearest():
    made = Synchronizer('ab', 10 * MS)
    found = run(made, merged({}, a=regular(100 * MS, 10), b=regular(20 * MS, 50, 6 * MS)))
    assert made.sets == 10
    assert all(each.skew <= 10 * MS for each in found)
    assert made.counts('b').no_partner == 40


def test_reordered_messages_find_their_partners():
    a, b = regular(PERIOD, 30), regular(PERIOD, 30, 5 * MS)
    arrivals = merged({'b': 20 * MS}, a=a, b=b)
    at = arrivals.index(('a', a[10]))
    following = arrivals.index(('a', a[11]))
    arrivals[at], arrivals[following] = arrivals[following], arrivals[at]
    made = Synchronizer('ab', 12 * MS)
    run(made, [(n, s) for n, s in arrivals])
    assert made.sets >= 29


def test_repeated_and_impossible_stamps_are_invalid():
    made = Synchronizer('ab', 10 * MS)
    a, b = regular(PERIOD, 5), regular(PERIOD, 5, MS)
    run(made, [*merged({}, a=a, b=b), ('a', a[-1]), ('a', 0), ('b', -1)])
    assert made.sets == 5
    assert (made.counts('a').invalid, made.counts('b').invalid) == (2, 1)


def test_what_comes_after_its_set_is_late():
    made = Synchronizer('ab', 10 * MS)
    a, b = regular(PERIOD, 8), regular(PERIOD, 8, MS)
    late = a.pop(3)
    run(made, [*merged({}, a=a, b=b), ('a', late)])
    assert (made.counts('a').late, made.sets) == (1, 7)


def test_a_silent_stream_is_the_reason_and_the_queue_stays_small():
    patient = Synchronizer('ab', 10 * MS, queue_size=10, patience=200 * MS)
    hasty = Synchronizer('ab', 10 * MS, queue_size=3, patience=200 * MS)
    for made in (patient, hasty):
        b = regular(PERIOD, 5, MS)
        run(made, merged({}, a=regular(PERIOD, 40), b=b))
        assert made.sets == 5
    assert (patient.counts('a').silent, patient.counts('a').queue_full) == (35, 0)
    assert hasty.counts('a').queue_full > 20


def test_a_stream_that_comes_back_is_paired_again():
    a, b = regular(PERIOD, 60), regular(PERIOD, 60, MS)
    made = Synchronizer('ab', 10 * MS)
    run(made, merged({}, a=a, b=b[:10] + b[40:]))
    assert made.sets == 30
    assert made.counts('a').silent == 30 - made.counts('a').no_partner


def test_sets_go_on_without_an_optional_stream():
    made = Synchronizer('abc', 10 * MS, optional=['c'])
    latest, found = 0, []
    streams = {
        'a': regular(PERIOD, 60), 'b': regular(PERIOD, 60, MS),
        'c': regular(PERIOD, 60, 2 * MS)[20:40],
    }
    for stream, stamp in merged({}, **streams):
        for each in made.add(stream, stamp, None):
            found.append(each)
            if each.stamp > BEGIN + 50 * PERIOD:
                latest = max(latest, stamp - max(each.stamps.values()))
    found += made.flush()
    assert len(found) == 60
    # When it comes back, its first message finds its partners gone.
    assert sum('c' in each.stamps for each in found) == 19
    assert made.counts('c').no_partner == 1
    assert latest == 0      # given up, it is not waited for


def test_time_that_jumps_back_begins_anew():
    """As when a bag is played in a loop."""
    a, b = regular(PERIOD, 60), regular(PERIOD, 60, MS)
    once = merged({}, a=a, b=b)
    made = Synchronizer('ab', 10 * MS)
    run(made, once * 3)
    assert made.resets == 2
    assert made.sets >= 3 * 60 - 2


def test_a_loop_of_less_than_a_second_begins_anew_too():
    once = merged({}, a=regular(PERIOD, 24), b=regular(PERIOD, 24, MS))
    made = Synchronizer('ab', 10 * MS)
    run(made, once * 5)
    assert made.resets == 4
    assert made.sets >= 5 * 24 - 4 * 3
    assert made.counts('a').late <= 4 * 3


def test_a_clock_that_is_set_back_by_half_a_second_costs_a_few_messages():
    before, after = regular(PERIOD, 60), [at - LONG for at in regular(PERIOD, 120)[60:]]
    made = Synchronizer('abc', 10 * MS)
    run(made, merged({}, a=before, b=before, c=before) + merged({}, a=after, b=after, c=after))
    assert made.resets == 1
    assert made.sets >= 120 - 3


def test_messages_that_are_always_late_are_no_jump():
    made = Synchronizer('ab', 10 * MS, patience=100 * MS)
    run(made, [*(('a', at) for at in regular(PERIOD, 25)),
               *(('b', at) for at in regular(PERIOD, 20))])
    assert (made.counts('b').late, made.resets) == (20, 0)


def test_late_messages_between_others_are_no_jump():
    """As on a link that holds one back every now and then."""
    a, b = regular(PERIOD, 100), regular(PERIOD, 100, MS)
    held = a[::10]
    delayed = [(stamp + 3 * PERIOD, 'a', stamp) for stamp in held]
    rest = [(stamp, name, stamp) for name, stamps in (('a', a), ('b', b)) for stamp in stamps
            if stamp not in held]
    made = Synchronizer('ab', 10 * MS)
    run(made, [(name, stamp) for _, name, stamp in sorted(delayed + rest)])
    assert (made.counts('a').late, made.sets, made.resets) == (10, 90, 0)


def test_an_old_message_that_comes_again_and_again_is_no_jump():
    made = Synchronizer('ab', 10 * MS)
    run(made, merged({}, a=regular(PERIOD, 20), b=regular(PERIOD, 20)) + [('b', BEGIN)] * 20)
    assert (made.counts('b').late, made.resets) == (20, 0)


def test_a_pause_costs_nothing():
    a, b = regular(PERIOD, 30), regular(PERIOD, 30, MS)
    made = Synchronizer('ab', 10 * MS)
    later = [stamp + 7 * JUMP_NS for stamp in a], [stamp + 7 * JUMP_NS for stamp in b]
    run(made, merged({}, a=a + later[0], b=b + later[1]))
    assert (made.sets, made.resets) == (60, 0)


@pytest.mark.parametrize('wrong', [BEGIN + 3600 * JUMP_NS, 5])
def test_one_wrong_stamp_disturbs_nothing(wrong):
    arrivals = merged({}, a=regular(PERIOD, 60), b=regular(PERIOD, 60, MS))
    arrivals.insert(50, ('a', wrong))
    made = Synchronizer('ab', 10 * MS)
    run(made, arrivals)
    assert (made.sets, made.resets, made.counts('a').invalid) == (60, 0, 1)


@pytest.mark.parametrize('arguments, said', [
    ((['a'], 1), 'two or more'),
    ((['a', 'a'], 1), 'two or more'),
    ((['a', 'b'], -1), 'slop -1'),
])  # fmt: skip
def test_what_cannot_be_paired_is_an_error(arguments, said):
    with pytest.raises(ValueError, match=said):
        Synchronizer(*arguments)


@pytest.mark.parametrize(('streams', 'optional', 'slop', 'queue_size'), [
    (3, 2, 1000, 50), (5, 4, 50, 10), (8, 4, 1000, 50), (8, 0, 1000, 50),
])  # fmt: skip
def test_the_work_of_a_decision_is_bounded(monkeypatch, streams, optional, slop, queue_size):
    """What is counted are the sets whose worth is found, in each search for the best of them."""
    work = [0]

    def best_first(*arguments):
        work.append(0)
        return weigh_all(*arguments)

    def worth(*arguments):
        work[-1] += 1
        return weigh(*arguments)

    weigh_all, weigh = sync.best_first, sync._worth
    monkeypatch.setattr(sync, 'best_first', best_first)
    monkeypatch.setattr(sync, '_worth', worth)
    names = 'abcdefgh'[:streams]
    made = Synchronizer(
        names, slop * MS, optional=names[1:1 + optional], queue_size=queue_size, patience=JUMP_NS
    )
    count = 60
    phases = np.random.default_rng(1).uniform(0, PERIOD, streams)
    stamps = {name: regular(PERIOD, count, phase)
              for name, phase in zip(names, phases, strict=True)}
    for arrival in merged({}, **stamps):
        made.add(*arrival, None)
    assert max(work) <= 1000
    # Nor is there a search with every message: only where a set can be decided.
    assert len(work) <= 4 * count
    assert made.sets + max(made.waiting(name) for name in names) >= 0.9 * count


def test_one_message_a_stream_can_always_be_weighed():
    names = 'abcdefgh'
    needed = [name not in names[1:1 + sync.MOST_OPTIONAL] for name in names]
    found = sync.best_first([[BEGIN]] * len(names), needed, MS, lambda _at: 0)
    assert found == (0,) * len(names)


@pytest.mark.parametrize('optional', ['bb', 'bcdef'])
def test_optional_streams_are_few_and_different(optional):
    with pytest.raises(ValueError, match='optional streams are .* at most 4 different names'):
        Synchronizer('abcdefgh', 1, optional=optional)


@pytest.mark.parametrize('optional', [['a'], ['x']])
def test_the_reference_is_not_optional(optional):
    with pytest.raises(ValueError, match='optional streams are'):
        Synchronizer('ab', 1, optional=optional)


def test_a_stream_of_another_name_is_an_error():
    with pytest.raises(KeyError):
        Synchronizer('ab', 1).add('c', BEGIN, None)
