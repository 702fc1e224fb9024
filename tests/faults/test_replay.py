"""Every fault in `muon-ad replay`, for the second second of a bag of three."""

from dataclasses import dataclass

import numpy as np
import pytest

from muon_ad.bags import open_bag
from muon_ad.faults import FaultPlan
from muon_ad.faults.fault import KINDS
from muon_ad.replay.networks import Choice
from muon_ad.replay.networks import load
from muon_ad.replay.networks import Networks
from muon_ad.replay.pipeline import Replay
from muon_ad.replay.topics import choose
from muon_ad.testing.bags import write_bag

SECTION = 'muon-ad replay'
RATE = 10


@dataclass(frozen=True)
class Case:
    """A fault, and what comes of the 30 images: ten of them are hit."""

    fault: str
    stylised: int = 30
    detected: int = 30
    positions: int = 30
    dropped: str = ''
    depth: str = '16UC1'

    @property
    def cells(self) -> tuple[str, ...]:
        """The columns of the table."""
        said = f'10 dropped: "{self.dropped}"' if self.dropped else ''
        return str(self.stylised), str(self.detected), str(self.positions), said

    @property
    def injected(self) -> str:
        """What is injected, and into which depth where it is not millimetres."""
        return f'`{self.fault}`' + (' in 32FC1' if self.depth == '32FC1' else '')


def refused(fault: str, why: str) -> Case:
    """A fault of which every hit image is refused."""
    return Case(f'{fault} stream=color', 20, 20, 20, why)


CASES = [
    Case('unplug', 20, 20, 20, 'lost by a fault'),
    Case('stall', 20, 20, 20, 'lost by a fault'),
    Case('slow ms=200'),
    Case('duplicate every=2', 35, 35, 35),
    Case('reorder every=2'),
    Case('jump ms=-3000'),
    Case('jump ms=3000'),
    Case('drift ppm=200'),
    Case('wrap'),
    Case('corrupt percent=10 stream=color'),
    refused('short percent=50', 'data has'),
    refused('encoding as=bogus8', "encoding is 'bogus8'"),
    refused('empty', 'size is 0x0'),
    Case('no_info'),
    Case('late_info ms=500'),
    Case('misaligned px=20 stream=aligned'),
    Case('no_depth stream=aligned', positions=20),
    Case('no_depth stream=aligned', positions=20, depth='32FC1'),
]


@pytest.fixture(scope='module')
def networks(negative_package, one_box_package) -> Networks:
    """The tiny networks."""
    return load(Choice(
        style_model=str(negative_package), style_variant='small',
        detector_model=str(one_box_package),
    ))


@pytest.fixture(scope='module')
def bags(tmp_path_factory):
    """Three seconds of a camera with depth, by the encoding of that."""
    folder, grey = tmp_path_factory.mktemp('bags'), np.full((120, 160, 3), 90, np.uint8)
    depths = {
        '16UC1': np.full((120, 160), 2000, np.uint16),
        '32FC1': np.full((120, 160), 2.0, np.float32),
    }
    return {
        encoding: write_bag(
            folder / f'{encoding}.mcap', [grey] * 3 * RATE, depth=depth, camera=60.0, rate=RATE,
        )
        for encoding, depth in depths.items()
    }


@pytest.mark.parametrize('case', CASES, ids=lambda case: case.injected)
def test_what_comes_of_each_image(networks, bags, case, fault_table):
    plan = FaultPlan([f'{case.fault} at=1'])
    with open_bag(bags[case.depth]) as opened:
        streams, _ = choose(opened, [], '', '')
        frames = list(Replay(opened, streams, networks, faults=plan).frames())
    good = [frame for frame in frames if not frame.dropped]
    dropped = [frame.dropped for frame in frames if frame.dropped]
    assert sum(frame.stylised is not None for frame in frames) == case.stylised
    assert sum(len(frame.detections.detections) == 1 for frame in good) == case.detected
    located = [frame for frame in good if frame.detections.detections[0].position_valid]
    assert len(located) == case.positions
    assert len(dropped) == (10 if case.dropped else 0)
    assert all(case.dropped in why for why in dropped)
    assert plan.counts[case.fault.split()[0]] >= 5
    fault_table.add(SECTION, case.injected, case.cells, None)


def test_every_kind_of_fault_is_done():
    assert {case.fault.split()[0] for case in CASES} == set(KINDS)
