"""How long fuzzing lasts: HYPOTHESIS_PROFILE=long takes minutes a test, for a search by hand."""

import os

from hypothesis import HealthCheck
from hypothesis import settings

# A slow machine is no error, and a folder of the test's own may serve all its examples.
COMMON = {
    'deadline': None,
    'suppress_health_check': [HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
}
settings.register_profile('fuzz', max_examples=100, **COMMON)
settings.register_profile('long', max_examples=20_000, **COMMON)
settings.load_profile('long' if os.environ.get('HYPOTHESIS_PROFILE') == 'long' else 'fuzz')
