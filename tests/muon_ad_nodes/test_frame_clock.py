"""Which clock a frame is stamped by, and what the status tells of it."""

import pytest

from muon_ad_nodes.parts.frame_clock import FrameClock
from muon_ad_nodes.parts.source import Frame

S = 1_000_000_000
NOW = 1_700_000_000 * S


def frame(arrival_ns, domain='system_time', device_ns=None):
    return Frame({}, arrival_ns, 0, domain, device_ns)


def clock(**options):
    return FrameClock(lambda: False, **options)


@pytest.mark.parametrize('domain', ['global_time', 'system_time'])
def test_a_time_of_this_machine_is_taken_as_it_is(domain):
    stamps = clock()
    assert stamps.stamp_ns(frame(NOW, domain, NOW - 5_000_000)) == NOW - 5_000_000
    assert stamps.values() == {'clock_domain': domain, 'clock_mapping': 'none'}


def test_a_time_that_cannot_be_true_is_replaced_by_the_arrival_and_counted():
    stamps = clock()
    for wrong in (NOW + 60 * S, NOW - 60 * S, 5):
        assert abs(stamps.stamp_ns(frame(NOW, 'global_time', wrong)) - NOW) < 5
    assert stamps.values()['clock_implausible'] == '3'


def test_a_clock_of_the_device_is_fitted_through_its_wrap_and_said_to_be():
    stamps = clock()
    wrap = (1 << 32) * 1000
    found = []
    for number in range(300):
        t = number * 33_333_333
        device = (wrap - 5 * S + t) % wrap      # wraps in the fifth second
        found.append(stamps.stamp_ns(frame(NOW + t, 'hardware_clock', device)) - t)
    assert max(found) - min(found) < 1_000_000
    values = stamps.values()
    assert values['clock_mapping'] == 'fitted' and values['clock_domain'] == 'hardware_clock'
    assert values['clock_jumps'] == '0'
    assert abs(float(values['clock_drift_ppm'])) < 2
    assert abs(float(values['clock_residual_ms'])) < 0.1
    assert float(values['clock_error_ms']) < 0.1


def test_a_device_that_is_opened_anew_may_have_a_new_clock():
    stamps = clock()
    for start in (10 * S, 0):
        stamps.restart()
        for number in range(100):
            t = number * 33_333_333
            arrival = NOW + t + (10 - start // S) * 5 * S
            stamp = stamps.stamp_ns(frame(arrival, 'hardware_clock', start + t))
            assert abs(stamp - arrival) < 1_000_000
    assert stamps.values()['clock_jumps'] == '0'


def test_simulated_time_and_unpaced_files_are_stamped_at_arrival():
    for stamps in (FrameClock(lambda: True), clock(replayed=True, paced=False)):
        for domain in ('global_time', 'hardware_clock'):
            assert stamps.stamp_ns(frame(NOW, domain, 7)) == NOW
        assert stamps.values()['clock_mapping'] == 'arrival'
    assert clock().stamp_ns(frame(NOW)) == NOW


def test_a_recording_is_mapped_to_now():
    stamps = clock(replayed=True)
    for number in range(100):
        t = number * 33_333_333
        stamp = stamps.stamp_ns(frame(NOW + t, 'global_time', 1_500_000_000 * S + t))
        assert abs(stamp - NOW - t) < 1_000_000
    assert stamps.values()['clock_mapping'] == 'fitted'


def test_stamps_rise_unless_the_nodes_clock_is_set_back():
    stamps = clock()
    first = stamps.stamp_ns(frame(NOW, 'global_time', NOW - 1000))
    again = stamps.stamp_ns(frame(NOW + 10, 'global_time', NOW - 1000))
    assert again == first + 1
    assert stamps.stamp_ns(frame(NOW - 60 * S)) == NOW - 60 * S


def test_nothing_is_told_before_the_first_frame():
    assert clock().values() == {}
