"""Whether the DDS transport that this process was given can carry images."""

from collections.abc import Mapping

_PROFILE_VARIABLES = ('FASTDDS_DEFAULT_PROFILES_FILE', 'FASTRTPS_DEFAULT_PROFILES_FILE')


def complaints(implementation: str, environment: Mapping[str, str]) -> list[str]:
    """Return a line for each setting under which Fast DDS loses images.

    `implementation` is the identifier of the RMW in use. As it comes, Fast DDS cuts an image of
    640x480 into datagrams, of which most are lost.
    """
    if 'fastrtps' not in implementation:
        return []
    found = []
    if not any(environment.get(name) for name in _PROFILE_VARIABLES):
        found.append(
            f'{" or ".join(_PROFILE_VARIABLES)} is not set: large images will be lost; '
            "the suite's launch files set it to launch/fastdds.xml"
        )
    if environment.get('ROS_AUTOMATIC_DISCOVERY_RANGE', '').upper() == 'LOCALHOST':
        found.append(
            'ROS_AUTOMATIC_DISCOVERY_RANGE=LOCALHOST adds a transport too small for images, of '
            'which a third was lost; leave it unset, or use ROS_DOMAIN_ID to keep robots apart'
        )
    return found
