"""What makes a replay impossible."""


class ReplayError(ValueError):
    """A replay cannot be done: which option, file or topic, and what was expected."""
