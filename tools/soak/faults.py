"""Which faults a soak run does, in which order: the same ones for the same seed."""

import random
from collections.abc import Iterable
from collections.abc import Iterator
from collections.abc import Mapping
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import count

from muon_ad.faults import Fault
from muon_ad.faults import random_faults

KILL, FREEZE, PAUSE = 'kill', 'freeze', 'pause'
HARM = {
    KILL: 'SIGKILL to its process',
    FREEZE: 'SIGSTOP to its process, for good: the supervisor has to find out',
    PAUSE: 'SIGSTOP to its process, and SIGCONT soon after',
}
# Of all faults, the share that is done to processes and not to what a camera sends.
HARM_SHARE = 0.3
GAP_S = 2.0, 8.0
FOR_S = 0.3, 3.0


@dataclass(frozen=True)
class Event:
    """A fault of a node, `gap_s` after everything works. `text` is for `~/inject_fault`."""

    gap_s: float
    node: str
    kind: str
    for_s: float
    text: str = ''

    def __str__(self) -> str:
        return f'{self.node}: {self.text or self.kind}'


def events(
    seed: int, cameras: Mapping[str, Iterable[str]], nodes: Sequence[str]
) -> Iterator[Event]:
    """Yield faults of `cameras`, of those kinds each, and harm to any of `nodes`, without end."""
    chance = random.Random(seed)
    texts = {
        camera: _of_camera(chance.randrange(2**31), list(kinds))
        for camera, kinds in cameras.items()
    }
    harms: list[str] = []
    victims: list[str] = []
    while True:
        gap_s = round(chance.uniform(*GAP_S), 2)
        if chance.random() >= HARM_SHARE:
            camera = chance.choice(list(cameras))
            fault = next(texts[camera])
            text = str(fault).replace(f'at={fault.at_s:g} ', '', 1)
            yield Event(gap_s, camera, fault.kind, fault.for_s, text)
            continue
        harms = harms or chance.sample(list(HARM), len(HARM))
        victims = victims or chance.sample(list(nodes), len(nodes))
        kind = harms.pop()
        for_s = round(chance.uniform(*FOR_S), 2) if kind == PAUSE else 0.0
        yield Event(gap_s, victims.pop(), kind, for_s)


def _of_camera(seed: int, kinds: list[str]) -> Iterator[Fault]:
    """Yield what a camera suffers; every kind comes once before one comes again."""
    for again in count(seed):
        yield from random_faults(again, len(kinds), kinds, for_s=FOR_S)
