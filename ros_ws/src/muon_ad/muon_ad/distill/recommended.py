"""What a backbone's folder recommends to those who stylise with it: `stylize.json`, if it has one.

An object with the default `attention`, and for each kind of attention the settings that suit it.
It is an addition of this suite to diffusers' folder format, which other programs pass over.
"""

import json
from dataclasses import dataclass
from dataclasses import field
from pathlib import Path

from muon_ad.distill.settings import ATTENTIONS
from muon_ad.distill.settings import REFERENCE
from muon_ad.paths import is_file

FILE = 'stylize.json'


class RecommendationError(ValueError):
    """The file is there and holds something else than expected."""


@dataclass(frozen=True)
class Recommendation:
    """`attention`, and `settings` for each of ATTENTIONS: some of settings.REFERENCE."""

    attention: str = 'denoiser'
    settings: dict[str, dict[str, float | str]] = field(default_factory=dict)


def recommendation(folder: Path) -> Recommendation:
    """Read a folder's recommendation; one without the file recommends the reference's settings.

    Raises RecommendationError.
    """
    path = folder / FILE
    if not is_file(path):
        return Recommendation()
    try:
        found = json.loads(path.read_text(encoding='utf-8'))
        attention = found.pop('attention')
        unknown = [name for name in found if name not in ATTENTIONS]
        unknown += [name for settings in found.values() for name in settings
                    if name not in REFERENCE]
    except (OSError, ValueError, KeyError, AttributeError, TypeError) as error:
        raise RecommendationError(
            f'{path}: cannot be read ({error!r}); expected an object with "attention" and '
            f'settings for each of {ATTENTIONS}'
        ) from error
    if attention not in ATTENTIONS or unknown:
        raise RecommendationError(
            f'{path}: has attention {attention!r} and unknown {unknown}; expected attention to be '
            f'one of {ATTENTIONS}, with settings of {tuple(REFERENCE)} for each'
        )
    return Recommendation(attention, found)
