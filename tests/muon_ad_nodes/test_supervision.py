"""What the supervisor decides, on a clock of the test's own."""

from hypothesis import given
from hypothesis import strategies as st

from muon_ad_nodes.parts.supervision import Action
from muon_ad_nodes.parts.supervision import Charge
from muon_ad_nodes.parts.supervision import next_in_order
from muon_ad_nodes.parts.supervision import Policy

POLICY = Policy(limit=2, first_delay_s=1.0, stable_s=10.0, startup_s=5.0, transition_s=4.0)


def charge(name='a', **fields) -> Charge:
    return Charge(name, POLICY, **fields)


def test_up_to_active():
    node = charge()
    assert node.next_action(0) is Action.NONE
    node.saw_status('unconfigured', 0)
    assert node.next_action(0) is Action.CONFIGURE
    node.asked(0)
    assert node.next_action(1) is Action.NONE
    node.saw_status('inactive', 1)
    assert node.next_action(1) is Action.ACTIVATE
    node.asked(1)
    node.saw_status('active', 2)
    assert node.next_action(2) is Action.NONE
    assert node.summary(2) == ''


def test_death_restart_with_doubling_waits_and_limit():
    node = charge()
    node.saw_status('active', 0)
    now, waits = 0.0, []
    for _ in range(POLICY.limit):
        node.saw_death(now)
        died = now
        while node.next_action(now) is not Action.RESTART:
            now += 0.25
        waits.append(now - died)
        node.restarted(now)
        assert node.next_action(now) is Action.NONE
        node.saw_status('active', now)
    node.saw_death(now)
    assert waits == [1.0, 2.0]
    assert node.given_up
    assert node.next_action(now + 1000) is Action.NONE
    assert 'given up after 2 attempts: the process died' in node.summary(now)
    assert node.restarts == 2


def test_stable_node_gets_its_attempts_back():
    node = charge()
    node.saw_death(0)
    node.restarted(1)
    node.saw_status('active', 2)
    node.saw_status('active', 11)
    assert node.attempts == 1
    node.saw_status('active', 12)
    assert node.attempts == 0


def test_failed_transition_is_tried_again_then_given_up():
    node = charge()
    node.saw_status('unconfigured', 0)
    now = 0.0
    for attempt in range(3):
        assert node.next_action(now) is Action.CONFIGURE
        node.asked(now)
        node.transition_failed('no model', now)
        assert 'no model' in node.summary(now)
        now += POLICY.delay(attempt)
    assert node.given_up


def test_unanswered_transition_counts_as_failed():
    node = charge()
    node.saw_status('unconfigured', 0)
    node.asked(0)
    assert node.next_action(4.1) is Action.NONE
    assert node.attempts == 1
    assert node.next_action(5.2) is Action.CONFIGURE


def test_restart_that_is_never_heard_of_is_repeated():
    node = charge()
    node.saw_death(0)
    assert node.next_action(1) is Action.RESTART
    node.restarted(1)
    assert node.next_action(6) is Action.NONE
    assert node.next_action(8.1) is Action.RESTART


def test_order_waits_for_those_before():
    first, second = charge('first'), charge('second')
    second.saw_status('unconfigured', 0)
    assert next_in_order([first, second], 1) == []
    first.saw_status('unconfigured', 1)
    assert next_in_order([first, second], 1) == [(first, Action.CONFIGURE)]
    first.asked(1)
    assert next_in_order([first, second], 1) == []
    first.saw_status('inactive', 2)
    assert next_in_order([first, second], 2) == [
        (first, Action.ACTIVATE), (second, Action.CONFIGURE),
    ]


def test_order_goes_on_without_one_that_never_comes():
    first, second = charge('first'), charge('second')
    second.saw_status('unconfigured', 0)
    assert next_in_order([first, second], POLICY.startup_s + 0.1) == [(second, Action.CONFIGURE)]
    assert 'is the process running?' in first.summary(POLICY.startup_s + 0.1)


EVENTS = st.lists(
    st.tuples(st.sampled_from(['unconfigured', 'inactive', 'active', 'death', 'fail', 'tick']),
              st.floats(0.01, 3.0)),
    max_size=60,
)


@given(EVENTS)
def test_whatever_happens_helping_is_limited(events):
    node, now, helped = charge(), 0.0, 0
    for event, pause in events:
        now += pause
        if event == 'death':
            node.saw_death(now)
        elif event == 'fail':
            node.transition_failed('x', now)
        elif event != 'tick':
            node.saw_status(event, now)
        action = node.next_action(now)
        if action is Action.RESTART:
            helped += 1
            node.restarted(now)
            assert not node.given_up
        elif action is not Action.NONE:
            node.asked(now)
    assert node.restarts == helped
