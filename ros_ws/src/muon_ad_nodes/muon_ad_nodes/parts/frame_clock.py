"""When a frame was taken, in the node's clock: by whose clock, and how that was mapped."""

from collections.abc import Callable

from muon_ad_nodes.parts.device_clock import DeviceClock
from muon_ad_nodes.parts.device_clock import MAX_DELAY_S
from muon_ad_nodes.parts.source import Frame

# By how much a stamp of the machine's clock may be ahead of the frame's arrival.
AHEAD_S = 0.02
_S = 1_000_000_000


class FrameClock:
    """Gives each frame its stamp.

    A time in the clock of this machine is taken as it is, unless it cannot be true: ahead of the
    arrival, or more than MAX_DELAY_S before it. The clock of a device is learnt (DeviceClock), as
    is every clock of a recording, `replayed` at its own pace. Where the node's clock does not run
    as a device's does, in `simulated` time or at the pace of whoever reads a file, there is
    nothing to learn, and a frame is stamped when it arrives.
    """

    def __init__(
        self, simulated: Callable[[], bool], replayed: bool = False, paced: bool = True
    ) -> None:
        self._simulated = simulated
        self._replayed = replayed
        self._paced = paced
        self._last = (0, 0)     # stamp and arrival
        self._domain = ''
        self._how = ''
        self._jumps = 0
        self.implausible = 0
        self._device = DeviceClock()

    def restart(self) -> None:
        """Forget what was learnt: the device is opened anew, and its clock may have restarted."""
        self._jumps += self._device.jumps
        self._device = DeviceClock()

    def stamp_ns(self, frame: Frame) -> int:
        """Return when the frame was taken, in ns of the node's clock.

        Rises from frame to frame, except where the node's clock is set back.
        """
        self._domain = frame.domain
        stamp = self._stamped(frame)
        last, last_arrival = self._last
        if frame.arrival_ns > last_arrival:
            stamp = max(stamp, last + 1)
        self._last = stamp, frame.arrival_ns
        return stamp

    def values(self) -> dict[str, str]:
        """Return what is known of the clock by name, for the status; nothing before a frame."""
        if not self._how:
            return {}
        values = {'clock_domain': self._domain, 'clock_mapping': self._how}
        if self._how == 'fitted':
            values['clock_drift_ppm'] = f'{self._device.drift_ppm:.2f}'
            values['clock_residual_ms'] = f'{self._device.residual_ms:.3f}'
            values['clock_error_ms'] = f'{self._device.error_ms:.3f}'
            values['clock_jumps'] = str(self._jumps + self._device.jumps)
        if self.implausible:
            values['clock_implausible'] = str(self.implausible)
        return values

    def _stamped(self, frame: Frame) -> int:
        if frame.device_ns is None or not self._paced or self._simulated():
            self._how = 'arrival'
            return frame.arrival_ns
        if self._replayed or frame.domain == 'hardware_clock':
            self._how = 'fitted'
            return self._device.to_node(frame.device_ns, frame.arrival_ns)
        self._how = 'none'
        age = frame.arrival_ns - frame.device_ns
        if -AHEAD_S * _S <= age <= MAX_DELAY_S * _S:
            return frame.device_ns
        self.implausible += 1
        return frame.arrival_ns
