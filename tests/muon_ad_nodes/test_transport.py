"""Warnings about settings under which images are lost."""

import pytest

from muon_ad_nodes.parts.transport import complaints

PROFILE = {'FASTDDS_DEFAULT_PROFILES_FILE': '/x/fastdds.xml'}


@pytest.mark.parametrize(
    'environment, words',
    [
        (PROFILE, []),
        ({'FASTRTPS_DEFAULT_PROFILES_FILE': '/x'}, []),
        ({}, ['large images will be lost']),
        ({**PROFILE, 'ROS_AUTOMATIC_DISCOVERY_RANGE': 'LOCALHOST'}, ['too small for images']),
        ({**PROFILE, 'ROS_AUTOMATIC_DISCOVERY_RANGE': 'SUBNET'}, []),
    ],
)
def test_fast_dds(environment, words):
    found = complaints('rmw_fastrtps_cpp', environment)
    assert len(found) == len(words)
    assert all(word in line for word, line in zip(words, found, strict=True))


def test_other_implementations_are_left_alone():
    assert complaints('rmw_cyclonedds_cpp', {}) == []
