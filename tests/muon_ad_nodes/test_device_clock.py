"""A device's clock against synthetic ones of known truth: jitter, drift, wraps, jumps, gaps."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings
from hypothesis import strategies as st

from muon_ad_nodes.parts.device_clock import DeviceClock
from muon_ad_nodes.parts.device_clock import EARLIEST
from muon_ad_nodes.parts.device_clock import fit_line
from muon_ad_nodes.parts.device_clock import WRAP_32_BIT_US_NS as WRAP

FPS = 30
EPOCH_NS = 1_700_000_000_000_000_000
LATENCY_S = 0.012
# Jitter of 5 ms: its bound where it has one, else its scale (standard deviation, mean).
JITTER_MS = {
    'uniform, late only': lambda rng, n: rng.uniform(0, 5, n),
    'uniform, symmetric': lambda rng, n: rng.uniform(-5, 5, n),
    'exponential': lambda rng, n: rng.exponential(5, n),
    'normal': lambda rng, n: rng.normal(0, 5, n),
    'heavy tail': lambda rng, n: np.minimum(5 * rng.pareto(1.5, n), 900),
    'outliers': lambda rng, n: rng.exponential(1, n) + (rng.random(n) < 0.1) * 300 * rng.random(n),
}


def ns(seconds):
    return np.round(np.asarray(seconds) * 1e9).astype(np.int64)


def times(seconds):
    return np.arange(round(seconds * FPS)) / FPS


class Stream:
    """Frames taken at true times `t`, stamped by a device and received by a node.

    `device_s` and `node_s` are by how much each clock was set at each frame.
    """

    def __init__(self, t, jitter_ms, ppm=200.0, start_s=4000.0, device_s=0.0, node_s=0.0):
        self.truth = EPOCH_NS + ns(t + node_s + LATENCY_S)
        arrivals = ns(t + np.asarray(jitter_ms) * 1e-3)
        # One frame does not overtake another.
        arrivals = np.maximum.accumulate(arrivals)
        self.arrivals = EPOCH_NS + arrivals + ns(node_s + LATENCY_S + 0 * t)
        self.device = ns(t * (1 + ppm * 1e-6) + start_s + device_s)

    def through(self, clock, wrap=WRAP):
        """Return the mapped times, in ns; the device wraps its own at `wrap`."""
        device = self.device % wrap if wrap else self.device
        pairs = zip(device.tolist(), self.arrivals.tolist(), strict=True)
        return np.array([clock.to_node(*pair) for pair in pairs])

    def errors_ms(self, mapped, reference_ms=0.0):
        return (mapped - self.truth) * 1e-6 - reference_ms


@pytest.mark.parametrize('ppm', [200.0, -200.0])
@pytest.mark.parametrize('kind', JITTER_MS)
def test_the_error_is_under_half_a_millisecond(kind, ppm):
    """At 200 ppm and 5 ms of jitter, through a wrap; against the reference, the earliest arrivals.

    Jitter without a sharp edge takes minutes to average out, and half a minute else.
    """
    rng = np.random.default_rng(7)
    draw = JITTER_MS[kind]
    sharp = kind not in ('normal', 'uniform, symmetric')
    t = times(700)
    stream = Stream(t, draw(rng, len(t)), ppm)
    clock = DeviceClock(WRAP)
    mapped = stream.through(clock)
    errors = stream.errors_ms(mapped, np.quantile(draw(rng, 1_000_000), EARLIEST))
    assert np.abs(errors[t > (30 if sharp else 300)]).max() < 0.5
    assert clock.drift_ppm == pytest.approx(ppm, abs=2)
    assert clock.jumps == 0
    assert np.all(np.diff(mapped) > 0)
    assert clock.error_ms < 0.25


def test_the_reference_is_within_half_a_millisecond_of_the_shortest_latency():
    rng = np.random.default_rng(8)
    t = times(400)
    for draw in (JITTER_MS['uniform, late only'], JITTER_MS['exponential']):
        stream = Stream(t, draw(rng, len(t)))
        errors = stream.errors_ms(stream.through(DeviceClock(WRAP)))
        assert np.abs(errors[t > 200]).max() < 0.5


@settings(max_examples=20, deadline=None, derandomize=True)
@given(
    ppm=st.floats(-500, 500),
    start_s=st.floats(0, 10_000),
    wraps=st.booleans(),
    period=st.sampled_from([1 / 15, 1 / 30, 1 / 90]),
    kept=st.floats(0.3, 1.0),
    seed=st.integers(0, 1000),
)
def test_any_clock_is_learnt_from_any_rate_with_any_losses(
    ppm, start_s, wraps, period, kept, seed
):
    rng = np.random.default_rng(seed)
    t = np.arange(0, 90, period)
    t = t[rng.random(len(t)) < kept]
    stream = Stream(t, rng.uniform(0, 5, len(t)), ppm, start_s)
    wrap = WRAP if wraps else None
    clock = DeviceClock(wrap)
    mapped = stream.through(clock, wrap)
    # The edge of fewer than 600 frames, as of a camera that loses most of them, is less sharp.
    allowed_ms = 0.5 * np.sqrt(np.maximum(600 / np.arange(1, len(t) + 1), 1))
    assert np.all(np.abs(stream.errors_ms(mapped, 0.4)) < allowed_ms, where=t > 60)
    assert np.all(np.diff(mapped) > 0)
    assert clock.jumps == 0


@settings(max_examples=25, deadline=None, derandomize=True)
@given(
    jump_s=st.one_of(st.floats(0.02, 5000), st.floats(-3900, -0.02)),
    whose=st.sampled_from(['device', 'node']),
    seed=st.integers(0, 1000),
)
def test_a_jump_of_either_clock_is_found_and_counted(jump_s, whose, seed):
    rng = np.random.default_rng(seed)
    t = times(90)
    at = 45.0
    stream = Stream(t, rng.uniform(0, 3, len(t)), **{f'{whose}_s': jump_s * (t >= at)})
    clock = DeviceClock(WRAP)
    mapped = stream.through(clock)
    errors = stream.errors_ms(mapped, 0.24)
    assert clock.jumps == 1
    assert np.abs(errors[(t > 30) & (t < at)]).max() < 0.5
    assert np.abs(errors[t > at + 30]).max() < 0.5
    # Never further off than a frame may be on its way, nor in the future by more than tolerance.
    assert errors.min() > -1100 and errors.max() < 1100
    late = (mapped - stream.arrivals) * 1e-6
    assert late.max() < 21
    backwards = np.flatnonzero(np.diff(mapped) <= 0)
    if whose == 'node' and jump_s < 0:
        assert set(backwards) <= {np.flatnonzero(t >= at)[0] - 1}
    else:
        assert not len(backwards)


@pytest.mark.parametrize('shift_s', [0.003, -0.003])
def test_a_shift_too_small_for_a_jump_is_followed(shift_s):
    rng = np.random.default_rng(9)
    t = times(150)
    stream = Stream(t, rng.uniform(0, 2, len(t)), device_s=shift_s * (t >= 60))
    errors = stream.errors_ms(stream.through(DeviceClock(WRAP)), 0.16)
    assert np.abs(errors[t > 100]).max() < 0.5


def test_a_slewed_clock_is_followed():
    """NTP may slew the node's clock by 500 ppm for a while."""
    rng = np.random.default_rng(10)
    t = times(300)
    stream = Stream(t, rng.uniform(0, 5, len(t)), node_s=5e-4 * np.clip(t - 100, 0, 100))
    errors = stream.errors_ms(stream.through(DeviceClock(WRAP)), 0.4)
    assert np.abs(errors).max() < 10
    assert np.abs(errors[(t > 130) & (t < 200)]).max() < 0.5
    assert np.abs(errors[t > 240]).max() < 0.5


def test_load_delays_frames_but_not_their_times():
    """A minute in which nearly every frame is late, by 30 ms in the mean."""
    rng = np.random.default_rng(11)
    t = times(400)
    jitter = rng.uniform(0, 2, len(t)) + rng.exponential(30, len(t)) * ((t > 120) & (t < 180))
    stream = Stream(t, jitter)
    clock = DeviceClock(WRAP)
    errors = stream.errors_ms(stream.through(clock), 0.16)
    assert clock.jumps == 0
    assert np.abs(errors[t > 60]).max() < 10      # of 100 and more that frames are late
    assert np.abs(errors[t > 350]).max() < 0.5


def test_a_late_start_is_soon_forgotten():
    """The first frames waited for the pipeline to come up."""
    rng = np.random.default_rng(12)
    t = times(60)
    jitter = rng.uniform(0, 2, len(t))
    jitter[:5] += [800, 770, 730, 700, 670]
    stream = Stream(t, jitter, start_s=0.0)
    clock = DeviceClock(WRAP)
    errors = stream.errors_ms(stream.through(clock), 0.16)
    assert np.abs(errors[t > 2]).max() < 1.0
    assert np.abs(errors[t > 30]).max() < 0.5
    assert clock.jumps == 0


def test_a_process_held_up_for_seconds_takes_nothing_for_a_jump():
    """What had queued up meanwhile arrives at once."""
    rng = np.random.default_rng(15)
    t = times(90)
    jitter = rng.uniform(0, 2, len(t))
    held = (t > 40) & (t < 43)
    stream = Stream(t, np.where(held, (43 - t) * 1e3, jitter))
    clock = DeviceClock(WRAP)
    errors = stream.errors_ms(stream.through(clock), 0.16)
    assert clock.jumps == 0
    assert np.abs(errors[(t > 30) & ~held]).max() < 0.5


@pytest.mark.parametrize('gap_s', [400.0, 2200.0, 30_000.0])
def test_a_long_gap_with_wraps_inside_is_no_jump(gap_s):
    rng = np.random.default_rng(13)
    t = times(90)
    t = np.where(t < 60, t, t + gap_s)
    stream = Stream(t, rng.uniform(0, 2, len(t)))
    clock = DeviceClock(WRAP)
    errors = stream.errors_ms(stream.through(clock), 0.16)
    assert clock.jumps == 0
    assert np.abs(errors[(t > 30) & (t < 60)]).max() < 0.5
    assert np.abs(errors[t >= 60]).max() < 2
    assert np.abs(errors[t >= gap_s + 75]).max() < 0.5


def test_the_line_has_its_share_of_points_below_it_and_none_is_lower():
    """Against brute force over a grid of slopes."""
    rng = np.random.default_rng(14)
    x = np.sort(rng.integers(0, 10**11, 400))
    y = np.round(1e-4 * x + rng.exponential(3e6, 400)).astype(np.int64)
    line = fit_line(x, y)

    def loss(slope, offset):
        above = y - offset - slope * (x - line.origin)
        return np.sum(np.where(above < 0, EARLIEST - 1, EARLIEST) * above)

    def least(slope):
        above = y - slope * (x - line.origin)
        return loss(slope, np.quantile(above, EARLIEST, method='inverted_cdf'))

    best = min(least(slope) for slope in np.linspace(0, 2e-4, 401))
    assert loss(line.slope, line.offset) <= best * 1.001
    below = np.mean(y < line.offset + line.slope * (x - line.origin))
    assert below == pytest.approx(EARLIEST, abs=0.01)


def test_before_the_first_frame_there_is_nothing_to_tell():
    clock = DeviceClock()
    assert (clock.residual_ms, clock.error_ms, clock.drift_ppm, clock.jumps) == (0, 0, 0, 0)
    assert clock.to_node(5, 1_000_000) == 1_000_000
