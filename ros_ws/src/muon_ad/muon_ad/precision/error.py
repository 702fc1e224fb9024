"""The error of this package."""


class PrecisionError(ValueError):
    """A network cannot be converted as asked; the message says which, why and what to do."""
