"""Claim: a node of the suite costs at most half of a plain one on the way of an image.

A camera, a node and a listener, each a process; 640x480 and 1280x720, rgb8, 30 Hz, one size at a
time. The node takes an image, runs a network that returns it, and publishes the result: what is
left is all but the network. Four set-ups take turns, round by round:

  suite        launch/fastdds.xml and the environment of the launch file; a lifecycle node with
               FrameTask: mailbox, worker thread, events executor, conversions, status
  standard     the suite's transport and conversions in a plain node with rclpy's own executor
  reliable     rclpy as it comes: `msg.data = pixels.tobytes()`, QoS depth 10, default executor,
               all work in the callback
  best_effort  the same with rclpy's sensor-data QoS, as its documentation recommends for images

Latency runs from before the camera fills its message to the callback of the listener, and CPU from
the first frame to the end, per result that arrives; of the node alone (`node`), and of all three
processes (`all`). Best effort loses most, which flatters the latency and ruins the CPU of the
rest: only what it delivers is compared. `dropped` counts images that the node itself left for
newer ones, as it does on a machine that is too busy; those of the warm-up are among them.

Where the time goes, as medians: `in` from the filled message to the begin of the work (publish in
the camera, DDS, executor, hand-over), `fill` and `send` of the result (convert, publish), `out`
from there to the listener. `dds` is the part of `in` from DDS's writing to its receipt, `executor`
the rest until the callback, with the copies into a Python message and, where DDS cuts images into
fragments, the wait for the last of them. A node with the events executor cannot see these two.

How to read it: ratios are suite / peer; delivered: above 1 is better, the others: below 1.
out/bench/path.png has the latencies of all frames.
"""

import json
import os
import subprocess
import time

import cv2
import numpy as np
import psutil
from _common import console
from _common import finish
from _common import OUT
from _common import parser
from _common import ratio
from _common import run
from _common import shown
from _common import spread
from _common import table
from _link import FPS
from _relay import INPUT
from _relay import RELAYS
from _relay import RESULT
from _ros import isolate
from _ros import launch
from _workers import line
from _workers import workers
from rich.table import Table
from transport import DRAIN_S
from transport import figures
from transport import LIMIT_S
from transport import percentile

from muon_ad.chart import line_chart

SIZES = ('640x480', '1280x720')
OF_SUITE = ('suite', 'standard')
FIGURES = ('delivered', 'p50_ms', 'p99_ms', 'cpu_node_ms', 'cpu_all_ms')
# By peer; see above.
COMPARED = {'standard': FIGURES, 'reliable': FIGURES, 'best_effort': ('delivered',)}
# Results that make a line in the chart.
MANY = 20
STAGES = ('in_ms', 'fill_ms', 'send_ms', 'out_ms', 'dds_ms', 'executor_ms')


def stages(sent: list, relayed: dict, received: list) -> dict[str, float | None]:
    """Return the median of each stage, in ms.

    `sent` holds (stamp, time to fill the message) by number, `received` (stamp, time of receipt),
    in ns; `relayed` is what _relay.py prints.
    """
    listened = dict(map(tuple, received))
    spans: dict[str, list[float]] = {name: [] for name in STAGES}
    for number, begun, filled, published in relayed['frames']:
        if number < 0:
            continue
        stamp, took = sent[number]
        spans['in_ms'].append(begun - stamp - took)
        spans['fill_ms'].append(filled - begun)
        spans['send_ms'].append(published - filled)
        if stamp in listened:
            spans['out_ms'].append(listened[stamp] - published)
    for dds, executor in relayed['waits']:
        spans['dds_ms'].append(dds)
        spans['executor_ms'].append(executor)
    return {name: percentile(np.array(values) * 1e-6, 50) for name, values in spans.items()}


def measure(
    name: str, size: str, environment: dict[str, str], frames: int
) -> tuple[dict[str, float | None], list[float]]:
    """Run a set-up once; return its figures, and the latencies in ms.

    Raises RuntimeError where a process fails or does not end.
    """
    ends = 'suite' if name in OF_SUITE else name
    with workers(frames / FPS + LIMIT_S) as start:
        listener = start(('_link.py', 'subscribe', ends, RESULT, size, '0'), environment)
        relay = start(('_relay.py', name), environment)
        camera = start(('_link.py', 'publish', ends, INPUT, size, str(frames)), environment)
        line(camera)    # it is matched
        line(relay)
        before = cpu_s(camera, relay, listener)
        print('go', file=camera.stdin, flush=True)
        sent = json.loads(line(camera))
        time.sleep(DRAIN_S)
        used = cpu_s(camera, relay, listener) - before
        for process in (relay, listener):
            process.stdin.close()
        relayed, received = json.loads(line(relay)), json.loads(line(listener))
    spent_ms = used / max(len(received), 1) * 1e3
    found = {
        **figures(sent, received), **stages(sent, relayed, received),
        'dropped': relayed['dropped'],
        'cpu_node_ms': spent_ms[1], 'cpu_all_ms': spent_ms.sum(),
    }
    return found, [(at - stamp) * 1e-6 for stamp, at in received]


def cpu_s(*processes: subprocess.Popen) -> np.ndarray:
    """Return the CPU time that each process has used."""
    return np.array([sum(psutil.Process(each.pid).cpu_times()[:2]) for each in processes])


def compare(measured: dict[str, dict[str, list[dict]]]) -> dict[str, dict]:
    """Return the named ratios, from set-up -> size -> figures of each round."""
    def rounds(name: str, size: str, figure: str) -> list[float | None]:
        return [values[figure] for values in measured[name][size]]

    found = {}
    for size in SIZES:
        found[f'delivered_{size}'] = spread(rounds('suite', size, 'delivered'))
        for peer, names in COMPARED.items():
            for figure in names:
                key = f'{figure.removesuffix("_ms")}_{size}_vs_{peer}'
                found[key] = ratio(rounds('suite', size, figure), rounds(peer, size, figure))
    return found


def tables(summary: dict[str, dict[str, dict]]) -> tuple[Table, Table]:
    """Return the figures, and where the time goes, from set-up -> size -> spreads."""
    titles = {
        'A camera at 30 Hz, a node without a network': (*FIGURES, 'dropped'),
        'Where the time goes': STAGES,
    }
    made = []
    for title, names in titles.items():
        filled = table(title, 'size, set-up', *names)
        for size in SIZES:
            for name in RELAYS:
                found = summary[name][size]
                cells = (shown(found[f], 2 if f == 'delivered' else 1) for f in names)
                filled.add_row(f'{size} {name}', *cells)
        made.append(filled)
    return tuple(made)


def draw(latencies: dict[str, dict[str, list[float]]]) -> None:
    """Write a chart for each size: which share of the results came how soon, where many came."""
    percents = np.arange(1, 100)
    charts = []
    for size in SIZES:
        lines = {
            name: (percents, np.percentile(by_size[size], percents))
            for name, by_size in latencies.items() if len(by_size[size]) >= MANY
        }
        if lines:
            title = f'From camera to listener, {size} at 30 Hz'
            charts.append(line_chart(title, 'percent of the results', 'ms at most', lines))
    if charts:
        OUT.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(OUT / 'path.png'), np.vstack(charts)[..., ::-1])


def main() -> None:
    """Measure, show and write."""
    options = parser(__doc__).parse_args()
    rounds, seconds = (1, 1.0) if options.quick else (5, 7.0)
    isolate()
    plain, ours = dict(os.environ), launch().nodes[0].environment
    measured = {name: {size: [] for size in SIZES} for name in RELAYS}
    latencies = {name: {size: [] for size in SIZES} for name in RELAYS}
    for number in range(1, rounds + 1):
        for size in SIZES:
            for name in RELAYS:
                environment = ours if name in OF_SUITE else plain
                found, delays = measure(name, size, environment, round(seconds * FPS))
                measured[name][size].append(found)
                latencies[name][size] += delays
                arrived = f'{found["delivered"]:.0%} delivered'
                console.print(f'round {number}/{rounds}, {size} {name}: {arrived}')
    summary = {
        name: {
            size: {f: spread([values[f] for values in rounds_of]) for f in rounds_of[0]}
            for size, rounds_of in by_size.items()
        }
        for name, by_size in measured.items()
    }
    draw(latencies)
    filled, split = tables(summary)
    console.print(split)
    settings = {'rounds': rounds, 'seconds': seconds, 'quick': options.quick}
    finish('path', filled, compare(measured), summary, settings=settings)


if __name__ == '__main__':
    run(main)
