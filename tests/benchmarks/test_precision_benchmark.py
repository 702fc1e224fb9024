"""Pairs, names and timing of the benchmark of INT8 against FP32."""

from dataclasses import replace
from pathlib import Path

import precision
import precision_networks as networks
import pytest
from precision import Case

from muon_ad.precision.network import Network
from muon_ad.runtime.package import load_package

MODELS = Path(__file__).resolve().parents[2] / 'models'


def case(package: str, level: str, size: str) -> Case:
    loaded = load_package(MODELS / package)
    variant = replace(loaded.variant(), name=f'{level}_{size}')
    network = Network(variant.file, [], loaded, variant)
    return Case(network, variant.file, size, 0.0, 0.0, (1.0, 0.5, 0.3), True)


@pytest.mark.parametrize(('package', 'level', 'threads', 'expected'), [
    ('style_default', 'dense', 1, 'int8_speedup_320x240'),
    ('style_default', 'p60', 1, 'p60_int8_speedup_320x240'),
    ('detector_default', 'dense', 2, 'detector_int8_speedup_320x240_2_threads'),
])
def test_names_of_ratios(package, level, threads, expected):
    assert precision.key(case(package, level, '320x240'), threads) == expected


def test_a_student_is_measured_at_both_sizes_and_a_detector_at_its_own():
    sizes = [(each.variant.width, each.variant.height) for each in
             precision.sized(case('style_default', 'dense', '320x240').network)]
    assert sizes == list(precision.STUDENT_SIZES)
    assert len(precision.sized(case('detector_default', 'dense', '320x256').network)) == 1


def test_networks_take_turns_in_every_round(tmp_path):
    paths = {name: networks.plain_network(tmp_path / f'{name}.onnx') for name in ('fp32', 'int8')}
    taken = precision.measure(paths, networks.random_feeds(2), 1, rounds=3, frames=2)
    assert taken.keys() == paths.keys()
    assert all(len(values) == 3 and min(values) > 0 for values in taken.values())
