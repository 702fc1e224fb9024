"""Stages and ratios on the way of an image, from what camera, node and listener tell."""

import cv2
import numpy as np
import path
import pytest

MS = 1_000_000
FRAME = 33 * MS


def test_stages_add_up_to_the_latency():
    sent = [(FRAME * number, 1 * MS) for number in range(60)]
    relayed = {
        'frames': [
            (number, stamp + 4 * MS, stamp + 6 * MS, stamp + 10 * MS)
            for number, (stamp, _) in enumerate(sent)
        ],
        'waits': [(MS // 2, 2 * MS)] * 60,
        'dropped': 0,
    }
    received = [(stamp, stamp + 15 * MS) for stamp, _ in sent]
    found = path.stages(sent, relayed, received)
    assert found == pytest.approx({
        'in_ms': 3, 'fill_ms': 2, 'send_ms': 4, 'out_ms': 5, 'dds_ms': 0.5, 'executor_ms': 2,
    })
    latency = path.figures(sent, received)['p50_ms']
    assert 1 + sum(found[name] for name in ('in_ms', 'fill_ms', 'send_ms', 'out_ms')) == \
        pytest.approx(latency)


def test_frames_of_the_warm_up_and_lost_results_have_no_stage():
    relayed = {
        'frames': [(-1, 0, 0, 900 * MS), (0, 2 * MS, 3 * MS, 4 * MS), (1, 9 * MS, 9 * MS, 9 * MS)],
        'waits': [], 'dropped': 0,
    }
    found = path.stages([(MS, 0), (8 * MS, 0)], relayed, [(MS, 6 * MS)])
    assert found['in_ms'] == pytest.approx(1)
    assert found['out_ms'] == pytest.approx(2)
    assert found['dds_ms'] is found['executor_ms'] is None


def measured(**by_name: tuple[float, ...]) -> dict:
    def rounds(values: tuple[float, ...]) -> list[dict]:
        return [dict.fromkeys((*path.FIGURES, *path.STAGES), value) for value in values]

    return {
        name: {size: rounds(values) for size in path.SIZES} for name, values in by_name.items()
    }


def test_ratios_are_made_round_by_round_for_each_size_and_peer():
    found = path.compare(measured(
        suite=(1.0, 2.0), standard=(1.0, 1.0), reliable=(4.0, 4.0), best_effort=(0.0, 0.5),
    ))
    assert found['delivered_640x480']['rounds'] == [1.0, 2.0]
    assert found['p99_1280x720_vs_reliable']['rounds'] == [0.25, 0.5]
    assert found['cpu_node_640x480_vs_standard']['rounds'] == [1.0, 2.0]
    assert found['delivered_640x480_vs_best_effort']['rounds'] == [None, 4.0]


def test_what_few_results_take_is_not_compared():
    found = path.compare(measured(
        suite=(1.0,), standard=(1.0,), reliable=(1.0,), best_effort=(1.0,),
    ))
    assert [name for name in found if 'best_effort' in name] == [
        'delivered_640x480_vs_best_effort', 'delivered_1280x720_vs_best_effort',
    ]


def test_every_setup_and_size_has_its_row():
    names = dict.fromkeys(
        (*path.FIGURES, 'dropped', *path.STAGES), {'median': None, 'rounds': []}
    )
    filled, split = path.tables({
        name: dict.fromkeys(path.SIZES, names) for name in path.RELAYS
    })
    rows = [f'{size} {name}' for size in path.SIZES for name in path.RELAYS]
    for made in (filled, split):
        assert list(made.columns[0].cells) == rows


def test_the_chart_has_those_that_delivered(tmp_path, monkeypatch):
    monkeypatch.setattr(path, 'OUT', tmp_path)
    latencies = {'suite': [2.0, 3.0] * 40, 'standard': [2.0], 'best_effort': []}
    path.draw({name: dict.fromkeys(path.SIZES, values) for name, values in latencies.items()})
    picture = cv2.imread(str(tmp_path / 'path.png'))
    assert picture.shape[0] % len(path.SIZES) == 0 and np.unique(picture).size > 2


def test_without_results_there_is_no_chart(tmp_path, monkeypatch):
    monkeypatch.setattr(path, 'OUT', tmp_path)
    path.draw({'best_effort': dict.fromkeys(path.SIZES, [2.0])})
    assert list(tmp_path.iterdir()) == []
