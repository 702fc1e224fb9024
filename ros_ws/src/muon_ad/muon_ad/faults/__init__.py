"""Faults done on purpose, for tests: what can be injected, when, and what it does to messages.

Nothing here knows ROS: nodes inject into what they publish, lock-step replay into what it reads.
"""

from muon_ad.faults.fault import Fault
from muon_ad.faults.fault import FaultError
from muon_ad.faults.fault import parse
from muon_ad.faults.fault import random_faults
from muon_ad.faults.messages import FaultyMessages
from muon_ad.faults.plan import FaultPlan

__all__ = ('Fault', 'FaultError', 'FaultPlan', 'FaultyMessages', 'parse', 'random_faults')
