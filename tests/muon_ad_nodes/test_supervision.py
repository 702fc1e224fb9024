"""What the supervisor decides, on a clock of the test's own."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from muon_ad_nodes.parts import lifecycle
from muon_ad_nodes.parts.supervision import Action
from muon_ad_nodes.parts.supervision import ANSWER_S
from muon_ad_nodes.parts.supervision import Attention
from muon_ad_nodes.parts.supervision import Charge
from muon_ad_nodes.parts.supervision import next_in_order
from muon_ad_nodes.parts.supervision import Policy
from muon_ad_nodes.parts.supervision import TRANSITIONS

POLICY = Policy(
    limit=2, first_delay_s=1.0, stable_s=10.0, startup_s=5.0, hang_s=3.0, transition_s=40.0
)


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
    for now in range(int(ANSWER_S) + 1):
        node.saw_status('unconfigured', now)
        assert node.next_action(now) is Action.NONE
    assert node.attempts == 0
    now = ANSWER_S + 0.1
    assert node.next_action(now) is Action.NONE
    assert node.attempts == 1
    node.saw_status('unconfigured', now + 1.1)
    assert node.next_action(now + 1.1) is Action.CONFIGURE


def test_long_transition_is_neither_a_hang_nor_unanswered():
    """TensorRT builds an engine: no status for minutes."""
    node = charge()
    node.saw_status('unconfigured', 0)
    node.asked(0)
    node.saw_status('configuring', 1)
    for now in (5, 20, 40):
        assert node.next_action(now) is Action.NONE
        assert node.summary(now) == ''
    node.saw_status('inactive', 40)
    assert node.next_action(40) is Action.ACTIVATE
    assert (node.attempts, node.hangs) == (0, 0)


def test_failure_after_a_long_transition_is_counted_once():
    node = charge()
    node.saw_status('unconfigured', 0)
    node.asked(0)
    node.saw_status('configuring', 0.1)
    node.saw_status('unconfigured', 30)
    assert node.next_action(30.1) is Action.NONE
    node.transition_failed('configure failed', 30.2)
    assert node.attempts == 1


def test_transition_beyond_its_time_is_a_hang():
    node = charge()
    node.saw_status('configuring', 0)
    assert node.next_action(POLICY.transition_s) is Action.NONE
    assert node.next_action(POLICY.transition_s + 1) is Action.KILL
    assert node.summary(POLICY.transition_s + 1) == 'hung: configuring for 41 s'


def test_restart_that_is_never_heard_of_is_killed_and_repeated():
    node = charge()
    node.saw_death(0)
    assert node.next_action(1) is Action.RESTART
    node.restarted(1)
    assert node.next_action(11) is Action.NONE
    assert node.next_action(12) is Action.KILL
    node.killed(12)
    node.saw_death(12.1)
    assert node.trouble == 'hung: no status 11 s after its start; it was killed'
    assert node.next_action(14.2) is Action.RESTART


def test_service_that_is_not_there_is_waited_for_then_counts_as_failed():
    node = charge()
    for now in range(int(ANSWER_S) + 1):
        node.saw_status('unconfigured', now)
        assert node.next_action(now) is Action.CONFIGURE
        node.could_not_be_asked(now)
    assert node.attempts == 0
    node.could_not_be_asked(ANSWER_S + 1)
    assert node.attempts == 1
    assert 'change_state is not there' in node.summary(ANSWER_S + 1)


def hung(silent: bool) -> tuple[Charge, float]:
    """A node that hangs, and the time at which that is plain."""
    node = charge()
    if silent:
        node.saw_status('active', 0)
        return node, POLICY.hang_s + 0.5
    for now in range(5):
        node.saw_status('active', now, busy_s=now)
    return node, now


@pytest.mark.parametrize('silent', [True, False])
def test_hung_node_is_killed_and_restarted_on_the_same_budget(silent):
    node, now = hung(silent)
    assert node.next_action(now) is Action.KILL
    assert node.summary(now).startswith('hung: ')
    node.killed(now)
    assert node.next_action(now + 1) is Action.NONE
    node.saw_death(now + 1)
    assert (node.hangs, node.attempts, node.restarts) == (1, 1, 0)
    assert node.trouble.endswith('it was killed')
    assert node.next_action(now + 2) is Action.RESTART
    node.restarted(now + 2)
    node.saw_status('active', now + 3)
    assert node.next_action(now + 3) is Action.NONE
    assert node.summary(now + 3) == ''
    for death in (now + 4, now + 10):
        node.saw_death(death)
    assert node.given_up


def test_working_long_but_not_too_long_is_no_hang():
    node = charge()
    for now in range(20):
        node.saw_status('active', now, busy_s=POLICY.hang_s)
        assert node.next_action(now) is Action.NONE


def test_killed_process_that_a_driver_holds_is_told_of_and_not_started_twice():
    node, now = hung(True)
    node.killed(now)
    assert node.next_action(now + 60) is Action.NONE
    assert 'a driver keeps its process from ending' in node.summary(now + 60)


@pytest.mark.parametrize('silent', [True, False])
def test_supervisor_that_did_not_listen_blames_nobody(silent):
    """All of the machine stood: nobody said anything, and frames in work look old."""
    node, now = hung(silent)
    node.be_patient(now)
    assert node.next_action(now) is Action.NONE
    for later in (now + 0.5, now + POLICY.hang_s):
        node.saw_status('active', later, busy_s=POLICY.hang_s + 1)
        assert node.next_action(later) is Action.NONE
    # Who hangs on is found after the grace.
    later = now + POLICY.hang_s + 0.5
    if not silent:
        node.saw_status('active', later, busy_s=9)
    else:
        later += POLICY.hang_s
    assert node.next_action(later) is Action.KILL


def test_hangs_can_be_left_alone():
    node = Charge('a', Policy(hang_s=0.0))
    node.saw_status('active', 0, busy_s=1000)
    assert node.next_action(1000) is Action.NONE


def test_attention():
    attention = Attention(longest_s=1.0)
    assert [attention.lost(now) for now in (100, 100.5, 101.5, 103, 103.1)] == [
        False, False, False, True, False,
    ]  # fmt: skip


def test_dead_before_its_first_status():
    node = charge()
    node.saw_process(0)
    assert node.next_action(1) is Action.NONE
    assert not node.settled(1)
    node.saw_death(2)
    assert node.next_action(3) is Action.RESTART


def test_the_states_of_transitions_are_those_of_the_lifecycle():
    assert tuple(lifecycle.UNDER_WAY.values()) == TRANSITIONS


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
    second.saw_status('unconfigured', POLICY.startup_s)
    assert next_in_order([first, second], POLICY.startup_s + 0.1) == [(second, Action.CONFIGURE)]
    assert 'is the process running?' in first.summary(POLICY.startup_s + 0.1)


EVENTS = st.lists(
    st.tuples(
        st.sampled_from(['unconfigured', 'configuring', 'inactive', 'active', 'death', 'fail',
                         'tick', 'lost']),
        st.floats(0.01, 30.0),
        st.floats(0.0, 10.0),
    ),
    max_size=60,
)  # fmt: skip


@given(EVENTS)
def test_whatever_happens_helping_is_limited(events):
    """Between two stretches of stable work: at most `limit` restarts, and one kill for each."""
    node, now, helped, killed, budget = charge(), 0.0, 0, 0, 0
    for event, pause, busy in events:
        now += pause
        if event == 'death':
            node.saw_death(now)
        elif event == 'fail':
            node.transition_failed('x', now)
        elif event == 'lost':
            node.be_patient(now)
        elif event != 'tick':
            node.saw_status(event, now, busy)
        budget = 0 if node.attempts == 0 else budget
        action = node.next_action(now)
        if action is Action.RESTART:
            assert not node.alive
            helped, budget = helped + 1, budget + 1
            node.restarted(now)
        elif action is Action.KILL:
            assert node.alive
            assert node.hang(now)
            killed += 1
            node.killed(now)
            node.saw_death(now + 0.1)
        elif action is not Action.NONE:
            node.asked(now)
        assert budget <= POLICY.limit
        if node.given_up:
            assert node.next_action(now + 1e6) is Action.NONE
    assert (node.restarts, node.hangs) == (helped, killed)
