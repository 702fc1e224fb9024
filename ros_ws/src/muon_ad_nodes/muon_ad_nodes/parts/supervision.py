"""What a supervisor does about each node it looks after: decided here, without ROS.

One `Charge` a node. It is told what was seen (`saw_status`, `saw_death`, `transition_failed`) and
asked what to do next (`next_action`); times are steady seconds.
"""

from dataclasses import dataclass
from dataclasses import field
from enum import Enum


class Action(Enum):
    """What the supervisor should do for a node now."""

    NONE = 'none'
    CONFIGURE = 'configure'
    ACTIVATE = 'activate'
    RESTART = 'restart'


@dataclass(frozen=True)
class Policy:
    """Limits of restarting and retrying.

    The wait before attempt n (from 0) is `first_delay_s * 2^n`, at most `longest_delay_s`. After
    `limit` attempts without `stable_s` seconds of activity in between, the node is given up.
    """

    limit: int = 5
    first_delay_s: float = 0.5
    longest_delay_s: float = 30.0
    stable_s: float = 30.0
    startup_s: float = 30.0
    transition_s: float = 30.0

    def delay(self, attempt: int) -> float:
        """Return the seconds to wait before attempt number `attempt`, from 0."""
        return min(self.first_delay_s * 2.0 ** min(attempt, 30), self.longest_delay_s)


@dataclass
class Charge:
    """One supervised node: what is known of it, and how often it was helped."""

    name: str
    policy: Policy = field(default_factory=Policy)
    begun: float = 0.0
    state: str = ''
    restarts: int = 0
    attempts: int = 0
    alive: bool = False
    trouble: str = ''
    _due: float = 0.0
    _asked: float | None = None
    _active_since: float | None = None

    def saw_status(self, state: str, now: float) -> None:
        """Take the lifecycle state from a status message."""
        self.alive = True
        if state != self.state:
            self._asked = None
        self.state = state
        if state != 'active':
            self._active_since = None
            return
        if self._active_since is None:
            self._active_since = now
            self.trouble = ''
        if now - self._active_since >= self.policy.stable_s:
            self.attempts = 0

    def saw_death(self, now: float) -> None:
        """The process is gone."""
        self.alive = False
        self.state = ''
        self._asked = self._active_since = None
        self._retry_later('the process died', now)

    def transition_failed(self, why: str, now: float) -> None:
        """A transition was refused, or went unanswered."""
        self._asked = None
        self._retry_later(why, now)

    def restarted(self, now: float) -> None:
        """The process was started anew."""
        self.restarts += 1
        self.begun = now
        self._asked = now

    def asked(self, now: float) -> None:
        """A transition was requested."""
        self._asked = now

    @property
    def given_up(self) -> bool:
        """Whether the limit of attempts is used up."""
        return self.attempts > self.policy.limit

    def settled(self, now: float) -> bool:
        """Whether nodes behind this one in the order need not wait for it (any longer)."""
        late = not self.state and now - self.begun > self.policy.startup_s
        return self.state in ('inactive', 'active') or self.attempts > 0 or late

    def next_action(self, now: float) -> Action:
        """Return what to do now; the caller does it and calls `asked` or `restarted`."""
        if self.given_up or now < self._due:
            return Action.NONE
        if self._asked is not None:
            if now - self._asked > self.policy.transition_s:
                self.transition_failed('no answer to a transition or restart', now)
            return Action.NONE
        if not self.alive:
            return Action.RESTART if self.attempts else Action.NONE
        return {
            'unconfigured': Action.CONFIGURE,
            'inactive': Action.ACTIVATE,
            'finalized': Action.NONE,
        }.get(self.state, Action.NONE)

    def summary(self, now: float) -> str:
        """Return a line for people; empty where all is well."""
        if self.given_up:
            return f'given up after {self.policy.limit} attempts: {self.trouble}'
        if self.attempts and self.state != 'active':
            wait = f'in {max(0.0, self._due - now):.1f} s'
            return f'{self.trouble}; attempt {self.attempts} of {self.policy.limit} {wait}'
        if not self.state and now - self.begun > self.policy.startup_s:
            return f'no status within {self.policy.startup_s:g} s; is the process running?'
        return ''

    def _retry_later(self, why: str, now: float) -> None:
        self.trouble = why
        self._due = now + self.policy.delay(self.attempts)
        self.attempts += 1


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
