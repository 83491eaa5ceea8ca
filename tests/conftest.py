"""What holds for every test."""

import os

from hypothesis import HealthCheck, settings

# How long an example takes says how busy the machine is, and nothing of what is tested.
settings.register_profile(
    "any machine", deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("any machine")


def pytest_xdist_auto_num_workers() -> int:
    """One more than there are cores: tests also wait, for other processes and for hubs that do not
    answer."""
    return (os.cpu_count() or 1) + 1
