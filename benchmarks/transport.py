"""Claim: images of two cameras arrive complete and soon with the suite's transport.

Two cameras (640x480 and 1280x720, rgb8, 30 Hz), each a process, send at the same time to two
subscribers, each a process. Three set-ups take turns, round by round:

  suite        launch/fastdds.xml and the environment of the launch file, messages, QoS and
               executor of the suite's nodes
  reliable     rclpy as it comes: `msg.data = pixels.tobytes()`, QoS depth 10, default executor
  best_effort  the same with rclpy's sensor-data QoS, as its documentation recommends for images

Latency runs from before the message is filled to the subscriber's callback. It counts only frames
that arrive, so it flatters a link that loses most of them. The age of the newest frame does not:
how old, at any moment, is the last frame the subscriber has? At 30 Hz, 17 ms and the latency is
the best median there can be.

How to read it: ratios are suite / peer; delivered: above 1 is better, times: below 1 is better.
"""

import json
import os
import subprocess
import time

import numpy as np
from _common import console
from _common import finish
from _common import parser
from _common import ratio
from _common import run
from _common import shown
from _common import spread
from _common import table
from _link import FPS
from _link import SETUPS
from _ros import isolate
from _ros import launch
from _workers import line
from _workers import workers

CAMERAS = ('640x480', '1280x720')
PEERS = tuple(name for name in SETUPS if name != 'suite')
COMPARED = ('delivered', 'p50_ms', 'p99_ms', 'age_p99_ms')
FIGURES = ('delivered', 'p50_ms', 'p99_ms', 'age_p50_ms', 'age_p99_ms', 'fill_ms')
# Below this many frames a 99th percentile is a maximum.
ENOUGH = 50
# Late frames count if they come within this time of the last one.
DRAIN_S = 0.5
# To start, to match and to end, beyond the time of sending.
LIMIT_S = 60.0


def figures(sent: list, received: list) -> dict[str, float | None]:
    """Return the figures of one link in one round.

    `sent` holds (stamp, time to fill the message), `received` (stamp, time of receipt); in ns.
    """
    stamps, fills = np.array(sent, np.float64).reshape(-1, 2).T
    delays = np.array([at - stamp for stamp, at in received], np.float64) * 1e-6
    ages = ages_ms(received, stamps[0], stamps[-1])
    return {
        'delivered': len(received) / len(sent),
        'p50_ms': percentile(delays, 50),
        'p99_ms': percentile(delays, 99) if len(delays) >= ENOUGH else None,
        'age_p50_ms': percentile(ages, 50),
        'age_p99_ms': percentile(ages, 99),
        'fill_ms': percentile(fills * 1e-6, 50),
    }


def ages_ms(received: list, begin_ns: float, end_ns: float) -> np.ndarray:
    """Return the age of the newest frame received, at every ms from `begin_ns` to `end_ns`.

    Before the first frame the subscriber has nothing: that counts as one sent at `begin_ns`.
    """
    moments = np.arange(begin_ns, end_ns, 1e6)
    ordered = sorted(received, key=lambda frame: frame[1])
    arrivals = np.array([at for _, at in ordered], np.float64)
    stamps = np.array([begin_ns, *(stamp for stamp, _ in ordered)], np.float64)
    newest = np.maximum.accumulate(stamps)[np.searchsorted(arrivals, moments, side='right')]
    return (moments - newest) * 1e-6


def percentile(values: np.ndarray, percent: float) -> float | None:
    """Return a percentile, or None of nothing."""
    return float(np.percentile(values, percent)) if len(values) else None


def measure(name: str, environment: dict[str, str], frames: int) -> dict[str, dict]:
    """Run both links of a set-up at once; return the figures of each camera.

    Raises RuntimeError where a process fails or does not end.
    """
    with workers(frames / FPS + LIMIT_S) as start:
        def end_of_link(role: str, size: str) -> subprocess.Popen:
            return start(('_link.py', role, name, f'link_{size}', size, str(frames)), environment)

        subscribers = {size: end_of_link('subscribe', size) for size in CAMERAS}
        publishers = {size: end_of_link('publish', size) for size in CAMERAS}
        for process in publishers.values():
            line(process)  # it is matched
        for process in publishers.values():
            print('go', file=process.stdin, flush=True)
        sent = {size: json.loads(line(process)) for size, process in publishers.items()}
        time.sleep(DRAIN_S)
        received = {}
        for size, process in subscribers.items():
            process.stdin.close()
            received[size] = json.loads(line(process))
    return {size: figures(sent[size], received[size]) for size in CAMERAS}


def compare(measured: dict[str, dict[str, list[dict]]]) -> dict[str, dict]:
    """Return the named ratios, from set-up -> camera -> figures of each round."""
    def rounds(name: str, size: str, figure: str) -> list[float | None]:
        return [values[figure] for values in measured[name][size]]

    found = {}
    for size in CAMERAS:
        found[f'delivered_{size}'] = spread(rounds('suite', size, 'delivered'))
        for peer in PEERS:
            for figure in COMPARED:
                key = f'{figure.removesuffix("_ms")}_{size}_vs_{peer}'
                found[key] = ratio(rounds('suite', size, figure), rounds(peer, size, figure))
    return found


def main() -> None:
    """Measure, show and write."""
    options = parser(__doc__).parse_args()
    rounds, seconds = (1, 2.0) if options.quick else (5, 7.0)
    isolate()
    plain, ours = dict(os.environ), launch().nodes[0].environment
    measured = {name: {size: [] for size in CAMERAS} for name in SETUPS}
    for number in range(1, rounds + 1):
        for name in SETUPS:
            found = measure(name, ours if name == 'suite' else plain, round(seconds * FPS))
            for size, values in found.items():
                measured[name][size].append(values)
            arrived = ', '.join(f'{size} {found[size]["delivered"]:.0%}' for size in CAMERAS)
            console.print(f'round {number}/{rounds}, {name}: {arrived}')
    summary = {
        name: {size: {f: spread([v[f] for v in sizes[size]]) for f in FIGURES} for size in CAMERAS}
        for name, sizes in measured.items()
    }
    filled = table('Two cameras at 30 Hz', 'camera, set-up', *FIGURES)
    for size in CAMERAS:
        for name in SETUPS:
            cells = (shown(summary[name][size][f], 2 if f == 'delivered' else 1) for f in FIGURES)
            filled.add_row(f'{size} {name}', *cells)
    settings = {'rounds': rounds, 'seconds': seconds, 'quick': options.quick}
    finish('transport', filled, compare(measured), summary, settings=settings)


if __name__ == '__main__':
    run(main)
