"""Balance of style and content by the size of their gradients."""

import math

from muon_ad.optim.settings import check_range


class GradientBalance:
    """The paper's lambda in L = L_distill + lambda L_content, found while training.

    No rule for it was seen (docs/paper.md). Ours: lambda = |g_style| / |g_content|, with which
    both losses pull equally strongly, as an exponential moving average with the factor `ema`,
    held within `limits`. The average is over the logarithm, so that exchanging style and content
    gives 1 / lambda, and each ratio is brought within the limits first, so that an outlier is
    soon forgotten. Raises ValueError for settings or norms out of range.
    """

    def __init__(self, ema: float = 0.9, limits: tuple[float, float] = (0.1, 10.0)) -> None:
        check_range('ema', ema, 0, 1)
        check_range('limits[0]', limits[0], 0, positive=True)
        check_range('limits[1]', limits[1], limits[0])
        self.ema = ema
        self.limits = limits
        self._average: float | None = None

    @property
    def value(self) -> float:
        """Lambda as of the last update; before the first, 1 or the limit nearest to it."""
        if self._average is None:
            return min(max(1.0, self.limits[0]), self.limits[1])
        return math.exp(self._average)

    def update(self, style_norm: float, content_norm: float) -> float:
        """Take in the norms of a step's gradients; return lambda.

        The first step counts in full. Where a norm is zero there is no ratio, and lambda stays.
        """
        check_range('style_norm', style_norm, 0)
        check_range('content_norm', content_norm, 0)
        if style_norm and content_norm:
            low, high = map(math.log, self.limits)
            ratio = min(max(math.log(style_norm) - math.log(content_norm), low), high)
            before = ratio if self._average is None else self._average
            self._average = self.ema * before + (1 - self.ema) * ratio
        return self.value

    def state_dict(self) -> dict[str, float | None]:
        """Return what a resumed run needs."""
        return {'average': self._average}

    def load_state_dict(self, state: dict[str, float | None]) -> None:
        """Go on from `state_dict`."""
        self._average = state['average']
