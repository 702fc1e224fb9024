"""Every fault of a camera, seen from every stage behind it; results come back each time."""

import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pytest
from faults.graph import COLOR
from faults.graph import DEPTH
from faults.graph import Graph
from faults.graph import Stage
from faults.graph import stamp_error_s

from muon_ad.faults.fault import KINDS
from muon_ad.testing.bags import write_bag

STAGES = ('camera', 'style_transfer', 'object_detector', 'frame_sync')


@dataclass(frozen=True)
class Sight:
    """What a stage shows while a fault is on, in words, and how to tell."""

    words: str
    seen: Callable[[Stage], bool]

    def but(self, words: str, seen: Callable[[Stage], bool]) -> 'Sight':
        """Add something that is seen as well."""
        return Sight(f'{self.words}{words}', lambda stage: self.seen(stage) and seen(stage))


def says(text: str) -> Sight:
    """The status has a message that contains `text`."""
    return Sight(f'status: "{text}"', lambda stage: text in stage.said)


def _right(stage: Stage) -> bool:
    # The faults put stamps seconds to minutes off; on no machine results are late by as much.
    return all(-2.0 < stamp_error_s(arrival) < 0.5 for arrival in tuple(stage.arrivals))


def _wrong(stage: Stage) -> bool:
    return any(not -2.0 < stamp_error_s(arrival) < 0.5 for arrival in tuple(stage.arrivals))


def _positions(stage: Stage) -> bool:
    return any(found.position_valid for array in stage.newest(3) for found in array.detections)


PAUSES = Sight('pauses', lambda stage: stage.results == 0)
REFUSES = Sight('refuses them', lambda stage: stage.invalid >= 3 and stage.results == 0)
GOES_ON = Sight('goes on', lambda stage: stage.results >= 5 and not stage.said)
SLOWER = GOES_ON.but(', slower', lambda stage: stage.pace < 0.5)
RIGHT = GOES_ON.but(', stamps right', _right)
JUMP_COUNTED = RIGHT.but(', `clock_jumps` counts', lambda stage: stage.rises('clock_jumps'))
WRONG = GOES_ON.but(', stamps wrong', _wrong)
LATE = GOES_ON.but(', late', lambda stage: stamp_error_s(stage.arrivals[-1]) < -0.19)
POSITIONS = GOES_ON.but(', camera_info as before', _positions)
NO_POSITIONS = GOES_ON.but(', no positions', lambda stage: not _positions(stage))


@dataclass(frozen=True)
class Case:
    """A fault, and what each stage shows."""

    fault: str
    camera: Sight
    style: Sight
    detector: Sight
    sync: Sight

    @property
    def sights(self) -> dict[str, Sight]:
        """By stage."""
        return dict(zip(STAGES, (self.camera, self.style, self.detector, self.sync), strict=True))

    @property
    def cells(self) -> tuple[str, ...]:
        """The columns of the table."""
        return tuple(sight.words for sight in self.sights.values())

    @property
    def pauses(self) -> bool:
        """Whether a stage shows no results."""
        return any(sight in (PAUSES, REFUSES) for sight in self.sights.values())


ON = (GOES_ON,) * 3
GONE = (PAUSES,) * 3
REFUSED = (REFUSES, REFUSES, GOES_ON)


def image_cases(stream: str) -> list[Case]:
    """Faults of the colour images, which are `stream`."""
    return [
        Case(f'corrupt percent=10 stream={stream}', GOES_ON, *ON),
        Case(f'short percent=50 stream={stream}', GOES_ON, *REFUSED),
        Case(f'encoding as=bogus8 stream={stream}', GOES_ON, *REFUSED),
        Case(f'empty stream={stream}', GOES_ON, *REFUSED),
    ]


def info_cases(detector: Sight) -> list[Case]:
    """Faults of camera_info."""
    return [
        Case('no_info', GOES_ON, GOES_ON, detector, GOES_ON),
        Case('late_info ms=500', GOES_ON, GOES_ON, detector, GOES_ON),
    ]


def depth_cases(stream: str) -> list[Case]:
    """Faults of the aligned depth, which is `stream`."""
    return [
        Case(f'misaligned px=20 stream={stream}', GOES_ON, *ON),
        Case(f'no_depth stream={stream}', GOES_ON, GOES_ON, NO_POSITIONS, GOES_ON),
    ]


FRAME_CASES = [
    Case('unplug', says('the camera is unplugged'), *GONE),
    Case('stall', says('no frame from the camera'), *GONE),
    Case('slow ms=200', SLOWER, SLOWER, SLOWER, SLOWER),
    Case('duplicate every=2', GOES_ON, *ON),
    Case('reorder every=2', GOES_ON, *ON),
    Case('jump ms=-3000', JUMP_COUNTED, RIGHT, RIGHT, RIGHT),
    Case('jump ms=3000', JUMP_COUNTED, RIGHT, RIGHT, RIGHT),
    Case('drift ppm=200', RIGHT, RIGHT, RIGHT, RIGHT),
    Case('wrap', RIGHT, RIGHT, RIGHT, RIGHT),
]
# A bag has no frames with a clock of their own, only messages with stamps.
MESSAGE_CASES = [
    Case('unplug', PAUSES, *GONE),
    Case('stall', PAUSES, *GONE),
    Case('slow ms=200', LATE, LATE, LATE, LATE),
    Case('duplicate every=2', GOES_ON, *ON),
    Case('reorder every=2', GOES_ON, *ON),
    Case('jump ms=-3000', WRONG, WRONG, WRONG, PAUSES),
    Case('jump ms=3000', WRONG, WRONG, WRONG, PAUSES),
    Case('drift ppm=200', GOES_ON, *ON),
    Case('wrap', WRONG, WRONG, WRONG, PAUSES),
]
BY_CAMERA = {
    'realsense_camera': [
        *FRAME_CASES, *image_cases('color'), *info_cases(POSITIONS), *depth_cases('aligned'),
    ],
    'csi_camera': [*FRAME_CASES, *image_cases('image'), *info_cases(GOES_ON)],
    'bag_player': [
        *MESSAGE_CASES, *image_cases(COLOR), *info_cases(POSITIONS), *depth_cases(DEPTH),
    ],
}
CASES = [(failing, case) for failing, each in BY_CAMERA.items() for case in each]


@pytest.fixture(scope='module')
def graphs(negative_package, one_box_package, tmp_path_factory):
    """The running graph of one failing camera, shared by its faults."""
    running: dict[str, Graph] = {}
    grey, depth = np.full((120, 160, 3), 90, np.uint8), np.full((120, 160), 2000, np.uint16)
    bag = write_bag(
        tmp_path_factory.mktemp('bags') / 'short.mcap', [grey] * 60, depth=depth, camera=60.0,
        rate=30.0, topic=COLOR, depth_topic=DEPTH,
    )

    def of(failing: str) -> Graph:
        if failing not in running:
            for graph in running.values():
                graph.close()
            running.clear()
            running[failing] = Graph(failing, negative_package, one_box_package, bag)
        return running[failing]

    yield of
    for graph in running.values():
        graph.close()


def good(name: str, result: object, failing: str) -> bool:
    """Whether a result is as it is where all is well."""
    if name != 'object_detector' or failing == 'csi_camera':
        return True     # without depth there are no positions
    return any(found.position_valid for found in result.detections)


def await_results(graph: Graph, failing: str) -> dict[str, float]:
    """Return when each stage had its next good result, in steady seconds."""
    since = time.monotonic()
    found: dict[str, float] = {}

    def all_there() -> bool:
        for name, stage in graph.stages.items():
            for at, result in tuple(stage.arrivals):
                if at >= since and name not in found and good(name, result, failing):
                    found[name] = at
        return len(found) == len(graph.stages)

    graph.bench.wait(all_there, f'results of every stage; {sorted(found)} had some', 30.0)
    return found


@pytest.mark.parametrize(
    ('failing', 'case'), CASES, ids=[f'{failing}-{case.fault}' for failing, case in CASES])
def test_what_a_fault_shows_and_how_results_come_back(graphs, failing, case, fault_table):
    graph = graphs(failing)
    await_results(graph, failing)
    kind = case.fault.split()[0]
    before = graph.plan.counts[kind]
    if case.camera is JUMP_COUNTED:
        graph.look(40)      # a clock must be known before it can be seen to jump
    for stage in graph.stages.values():
        stage.forget()
    graph.inject(f'{case.fault} for=1000')
    try:
        graph.bench.wait(lambda: graph.plan.counts[kind] > before, f'{case.fault} to begin')
        graph.look(10)      # so that what was on its way is over by the next look
        silent = [name for name, sight in case.sights.items() if sight in (PAUSES, REFUSES)]
        graph.look_until_silent(silent, 10)
        for name, sight in case.sights.items():
            graph.stages[name].wait(sight.seen, f'{name}: {sight.words}')
    finally:
        graph.inject('clear')
    ended = time.monotonic()
    back = await_results(graph, failing)
    for name, stage in graph.stages.items():
        # An image may be in work and one in the mailbox; more, over all faults, are lost.
        stage.wait(lambda stage: 0 <= stage.lost <= 2, f'{name} to account for all')
        stage.wait(lambda stage: not stage.said, f'{name} to say that all is well')
    seconds = max(back.values()) - ended if case.pauses else None
    fault_table.add(failing, f'`{case.fault}`', case.cells, seconds)


def test_every_kind_of_fault_is_done():
    done = {case.fault.split()[0] for _, case in CASES}
    assert done == set(KINDS)
