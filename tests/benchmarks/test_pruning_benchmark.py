"""The benchmark of pruning: its cases, its timing and its ratios; a short run on real data."""

import json

import _common
import _pruned
import _pruned_detector
import numpy as np
import pruning
import pytest

from muon_ad.runtime.package import load_package


def row(milliseconds: float, **quality: float) -> dict:
    return {'parameters': 1000, 'pruned': 0.4, 'gflops': 0.5, **quality,
            'ms': {threads: _common.spread([milliseconds, 2 * milliseconds])
                   for threads in pruning.thread_counts()}}


def test_every_method_is_planned_at_every_ratio_with_equal_steps():
    made = _pruned.cases(_pruned.METHODS, quick=False)
    assert len({case.name for case in made}) == 3 * len(_pruned.METHODS)
    plans = [case.plan(50) for case in made]
    assert {plan.steps for plan in plans} == {50}
    assert {plan.ratio for plan in plans} == {0.4, 0.6, 0.8}
    assert len(_pruned.cases(_pruned.METHODS, quick=True)) == 2


def test_ratios_are_of_the_shipped_variants_and_only_of_those_that_are_there():
    measured = {
        'shipped style': {
            'dense_320x240': row(9.0, ssim=0.50), 'p60_320x240': row(3.0, ssim=0.49),
            'dense_int8_320x240': row(4.5, ssim=0.5), 'dense_640x480': row(40.0),
        },
        'shipped detector': {'dense_320x256': row(8, mAP=0.3), 'p40_320x256': row(5, mAP=0.29)},
    }
    found = {key: value['median'] for key, value in pruning.headline(measured).items()}
    assert found == pytest.approx({
        'p60_speedup': 3, 'p60_ssim_loss': 0.01, 'int8_speedup': 2, 'int8_ssim_loss': 0,
        'detector_p40_map_loss': 0.01, 'fps_320x240': (1000 / 9 + 1000 / 18) / 2,
        'fps_640x480': (1000 / 40 + 1000 / 80) / 2,
    })
    assert pruning.headline({}) == {}
    assert pruning.filled(measured).row_count == 6


def test_every_variant_is_timed_once_a_round(negative_package):
    package = load_package(negative_package)
    frames = []

    def frame(size):
        frames.append(size)
        return np.zeros((size[1], size[0], 3), np.uint8)

    found = _pruned.latencies(package, ['small', 'large'], frame, rounds=2, seconds=0.001)
    assert set(found) == {(name, threads) for name in ('small', 'large')
                          for threads in pruning.thread_counts()}
    assert all(len(times) == 2 and min(times) > 0 for times in found.values())
    assert set(frames) == {(64, 48), (128, 96)}


def test_the_detector_is_pruned_timed_and_judged(data, tmp_path, monkeypatch):
    monkeypatch.setattr(_common, 'OUT', tmp_path)
    monkeypatch.setattr(_common, 'ROOT', tmp_path)
    monkeypatch.setattr(_pruned_detector, 'SCENES', 1)
    monkeypatch.setattr(pruning, 'QUICK_STEPS', 1)
    monkeypatch.setattr('sys.argv', ['pruning.py', '--quick', '--only', 'detector'])
    pruning.main()
    measured = json.loads((tmp_path / 'pruning.json').read_text())['measured']['detector']
    assert [*measured] == ['dense_320x256', 'taylor-p40_320x256', 'static-l1-p40_320x256']
    dense, ours, _ = measured.values()
    assert ours['parameters'] < dense['parameters'] and ours['gflops'] < dense['gflops']
    assert 0.1 < dense['mAP'] < 1
