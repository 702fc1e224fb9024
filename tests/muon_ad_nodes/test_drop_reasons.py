"""The table of why frames were dropped."""

from hypothesis import given
from hypothesis import strategies as st

from muon_ad_nodes.parts.drop_reasons import DropReasons
from muon_ad_nodes.parts.drop_reasons import MOST_LETTERS
from muon_ad_nodes.parts.drop_reasons import MOST_REASONS
from muon_ad_nodes.parts.drop_reasons import OTHERS


@given(st.lists(st.text() | st.integers(0, 30).map(str), max_size=200))
def test_every_frame_is_in_a_bounded_table(reasons):
    drops = DropReasons()
    for reason in reasons:
        drops.add(reason)
    counts = drops.counts()
    assert sum(counts.values()) == len(reasons)
    assert len(counts) <= MOST_REASONS + 1
    assert all(len(reason) <= MOST_LETTERS for reason in counts)


def test_first_reasons_keep_their_names():
    drops = DropReasons()
    for number in range(MOST_REASONS + 5):
        drops.add(f'reason {number}; expected something else {number}')
    drops.add('reason 0; expected nothing')
    assert drops.counts()['reason 0'] == 2
    assert drops.counts()[OTHERS] == 5
