"""The one-slot mailbox: newest wins, replacements are reported, closing ends every wait."""

import threading

from hypothesis import given
from hypothesis import strategies as st

from muon_ad_nodes.parts.mailbox import Mailbox


@given(st.lists(st.booleans(), max_size=50))
def test_every_item_is_taken_or_reported_as_replaced(steps):
    """True puts an item, False takes one."""
    mailbox, put, replaced, taken = Mailbox(), 0, 0, []
    for step in steps:
        if step:
            replaced += mailbox.put(put) is not None
            put += 1
        elif (item := mailbox.take(timeout=0)) is not None:
            taken.append(item)
    waiting = mailbox.take(timeout=0) is not None
    assert put == len(taken) + replaced + waiting
    assert taken == sorted(taken)


def test_newest_item_is_taken():
    mailbox = Mailbox()
    assert [mailbox.put(item) for item in 'abc'] == [None, 'a', 'b']
    assert mailbox.take() == 'c'


def test_take_waits_for_an_item_from_another_thread():
    mailbox = Mailbox()
    threading.Timer(0.05, mailbox.put, ['late']).start()
    assert mailbox.take(timeout=10) == 'late'


def test_close_ends_a_waiting_take_and_refuses_items():
    mailbox, results = Mailbox(), []
    waiting = threading.Thread(target=lambda: results.append(mailbox.take()))
    waiting.start()
    assert mailbox.close() is None
    waiting.join(10)
    assert results == [None]
    assert mailbox.put('x') == 'x'
    assert mailbox.take() is None
    assert mailbox.closed


def test_close_tells_of_an_item_that_nobody_took():
    mailbox = Mailbox()
    mailbox.put('left')
    assert mailbox.close() == 'left'
    assert mailbox.take() is None
