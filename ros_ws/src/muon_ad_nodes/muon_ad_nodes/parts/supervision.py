"""What a supervisor does about each node it looks after: decided here, without ROS.

One `Charge` a node. It is told what was seen (`saw_status`, `saw_death`, `transition_failed`, ...)
and asked what to do next (`next_action`); times are steady seconds.
"""

from dataclasses import dataclass
from dataclasses import field
from enum import Enum

# States in which a node's executor is in a transition, so that its status is silent.
TRANSITIONS = ('configuring', 'activating', 'deactivating', 'cleaningup')
# Until a transition begins that was asked for; the request or its reply may have been lost.
ANSWER_S = 10.0
# A process that got SIGKILL is gone at once, unless a driver holds it.
DEATH_S = 5.0


class Action(Enum):
    """What the supervisor should do for a node now."""

    NONE = 'none'
    CONFIGURE = 'configure'
    ACTIVATE = 'activate'
    RESTART = 'restart'
    KILL = 'kill'


@dataclass(frozen=True)
class Policy:
    """Limits of waiting, restarting and retrying.

    The wait before attempt n (from 0) is `first_delay_s * 2^n`, at most `longest_delay_s`. After
    `limit` attempts without `stable_s` seconds of activity in between, the node is given up.

    A node hangs whose status is silent for `hang_s`, or that works on one frame for so long; in a
    transition it is left `transition_s`, after its start `2 * startup_s`. `hang_s` 0: none hangs.
    """

    limit: int = 5
    first_delay_s: float = 0.5
    longest_delay_s: float = 30.0
    stable_s: float = 30.0
    startup_s: float = 30.0
    hang_s: float = 10.0
    transition_s: float = 300.0

    def delay(self, attempt: int) -> float:
        """Return the seconds to wait before attempt number `attempt`, from 0."""
        return min(self.first_delay_s * 2.0 ** min(attempt, 30), self.longest_delay_s)


@dataclass
class Charge:
    """One supervised node: what is known of it, and how often it was helped.

    `state` is the last one that its status named, '' before the first of a process; `trouble` is
    what went wrong last, at `trouble_at`.
    """

    name: str
    policy: Policy = field(default_factory=Policy)
    begun: float = 0.0
    state: str = ''
    restarts: int = 0
    hangs: int = 0
    attempts: int = 0
    alive: bool = False
    trouble: str = ''
    trouble_at: float = 0.0
    _heard: float = 0.0
    _in_state_since: float = 0.0
    _busy_s: float = 0.0
    _patient_from: float = 0.0
    _due: float = 0.0
    _asked: float | None = None
    _asked_in: str = ''
    _unasked_since: float | None = None
    _killed: str = ''
    _killed_at: float = 0.0
    _active_since: float | None = None

    def saw_process(self, now: float) -> None:
        """A process was started that will be this node, once it says something."""
        self.alive = True
        self._heard = now

    def saw_status(self, state: str, now: float, busy_s: float = 0.0) -> None:
        """Take the lifecycle state, and how long the frame in work takes, from a status."""
        self.alive = True
        self._heard, self._busy_s = now, busy_s
        if state != self.state:
            self._changed_state(state, now)
        if state != 'active':
            self._active_since = None
            return
        if self._active_since is None:
            self._active_since = now
        if now - self._active_since >= self.policy.stable_s:
            self.attempts = 0

    def _changed_state(self, state: str, now: float) -> None:
        self.state, self._in_state_since = state, now
        if self._asked is None or state in TRANSITIONS:
            return
        # Back where it was: the transition failed, and the reply will say so.
        self._asked = now if state == self._asked_in else None

    def saw_death(self, now: float) -> None:
        """The process is gone."""
        why = f'{self._killed}; it was killed' if self._killed else 'the process died'
        self.alive = False
        self.state = self._killed = ''
        self._asked = self._unasked_since = self._active_since = None
        self._busy_s = 0.0
        self._retry_later(why, now)

    def transition_failed(self, why: str, now: float) -> None:
        """A transition was refused, or went unanswered."""
        self._asked = None
        self._retry_later(why, now)

    def restarted(self, now: float) -> None:
        """The process was started anew."""
        self.restarts += 1
        self.begun = now
        self.saw_process(now)

    def start_failed(self, why: str, now: float) -> None:
        """The process could not be started."""
        self._retry_later(why, now)

    def asked(self, now: float) -> None:
        """A transition was requested."""
        self._asked, self._asked_in = now, self.state
        self._unasked_since = None

    def could_not_be_asked(self, now: float) -> None:
        """Its service for transitions is not there (yet)."""
        if self._unasked_since is None:
            self._unasked_since = now
        elif now - self._unasked_since > ANSWER_S:
            self._unasked_since = None
            self.transition_failed('its service change_state is not there', now)

    def killed(self, now: float) -> None:
        """The process was sent SIGKILL for `hang`; its death is still to be seen."""
        self._killed, self._killed_at = self.hang(now), now
        self.hangs += 1

    def be_patient(self, now: float) -> None:
        """Begin all waits anew: it was the supervisor that did not listen."""
        self._heard = self._in_state_since = self._patient_from = now
        if self._asked is not None:
            self._asked = now

    @property
    def given_up(self) -> bool:
        """Whether the limit of attempts is used up."""
        return self.attempts > self.policy.limit

    def settled(self, now: float) -> bool:
        """Whether nodes behind this one in the order need not wait for it (any longer)."""
        late = not self.state and now - self.begun > self.policy.startup_s
        return self.state in ('inactive', 'active') or self.attempts > 0 or late

    def hang(self, now: float) -> str:
        """Return why the node must be taken for hung; empty where it need not."""
        policy, limit = self.policy, self.policy.hang_s
        if not (limit and self.alive):
            return ''
        silent, lasting = now - self._heard, now - self._in_state_since
        if self.state in TRANSITIONS:
            late = lasting > policy.transition_s
            return f'hung: {self.state} for {lasting:.0f} s' if late else ''
        if not self.state:
            # Also where it runs well, and DDS does not get through to it since its restart.
            late = silent > 2 * policy.startup_s
            return f'hung: no status {silent:.0f} s after its start' if late else ''
        if silent > limit:
            return f'hung: no status for {silent:.0f} s'
        # It counts its work by a clock of its own, which runs on while all of the machine stands.
        if self._busy_s > limit and now - self._patient_from > limit:
            return f'hung: at work on one frame for {self._busy_s:.0f} s'
        return ''

    def next_action(self, now: float) -> Action:
        """Return what to do now; the caller does it and says so (`asked`, `killed`, ...)."""
        if self.given_up or self._killed:
            return Action.NONE
        if self.hang(now):
            return Action.KILL
        if self._unanswered(now):
            self.transition_failed('no answer to the request for a transition', now)
        if self._asked is not None or now < self._due:
            return Action.NONE
        if not self.alive:
            return Action.RESTART if self.attempts else Action.NONE
        return {'unconfigured': Action.CONFIGURE, 'inactive': Action.ACTIVATE}.get(
            self.state, Action.NONE
        )

    def _unanswered(self, now: float) -> bool:
        waiting = self._asked is not None and self.state not in TRANSITIONS
        return waiting and now - self._asked > ANSWER_S

    def summary(self, now: float) -> str:
        """Return a line for people; empty where all is well."""
        if self.given_up:
            return f'given up after {self.policy.limit} attempts: {self.trouble}'
        if self._killed:
            stays = now - self._killed_at > DEATH_S
            return self._killed + '; killed, but a driver keeps its process from ending' * stays
        if hang := self.hang(now):
            return hang
        if self.attempts and self.state != 'active':
            wait = f'in {max(0.0, self._due - now):.1f} s'
            return f'{self.trouble}; attempt {self.attempts} of {self.policy.limit} {wait}'
        if not self.state and now - self.begun > self.policy.startup_s:
            return f'no status within {self.policy.startup_s:g} s; is the process running?'
        return ''

    def _retry_later(self, why: str, now: float) -> None:
        self.trouble, self.trouble_at = why, now
        self._due = now + self.policy.delay(self.attempts)
        self.attempts += 1


@dataclass
class Attention:
    """Notices that the supervisor itself did not look for longer than `longest_s`.

    It was stopped, starved, or the whole machine stood. It cannot tell then who else hung.
    """

    longest_s: float
    _looked: float | None = None

    def lost(self, now: float) -> bool:
        """Look, and tell whether the last look is too long ago."""
        last, self._looked = self._looked, now
        return last is not None and now - last > self.longest_s


def next_in_order(charges: list[Charge], now: float) -> list[tuple[Charge, Action]]:
    """Return the actions that are due, keeping the order of the first configuration.

    A node is configured only when all before it are configured, or known not to come.
    """
    due = []
    clear = True
    for charge in charges:
        action = charge.next_action(now)
        if action is not Action.NONE and (clear or action is not Action.CONFIGURE):
            due.append((charge, action))
        clear = clear and charge.settled(now)
    return due
