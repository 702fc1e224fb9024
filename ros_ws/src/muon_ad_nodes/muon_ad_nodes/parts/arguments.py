"""The name of a node, as the ROS arguments of its process give it."""

from collections.abc import Sequence


def full_name(arguments: Sequence[str], default: str = '') -> str:
    """Return the fully qualified name of the node that a command line runs.

    Understands the remaps `__node` and `__ns` as rcl does (the last wins); `default` is the name
    that the executable itself chooses. Empty where neither is there.
    """
    name, namespace = default, '/'
    for flag, value in zip(arguments, arguments[1:], strict=False):
        if flag in ('-r', '--remap'):
            source, _, target = value.partition(':=')
            name = target if source == '__node' else name
            namespace = target if source == '__ns' else namespace
    return f'{namespace.rstrip("/")}/{name}' if name else ''
