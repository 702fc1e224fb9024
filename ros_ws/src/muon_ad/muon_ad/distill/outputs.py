"""The files that a stylisation makes: which ones, and where."""

import shutil
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from muon_ad.paths import is_file
from muon_ad.paths import is_folder
from muon_ad.picture_files import ENDINGS
from muon_ad.picture_files import pictures_in


class OutputError(ValueError):
    """The results cannot be put where they shall go."""


@dataclass(frozen=True)
class Output:
    """One picture to make: `picture` from `content`, and the files around it.

    While it is made, `part` beside it holds what is needed to go on after a crash; it goes when
    the picture is there.
    """

    content: Path
    picture: Path

    @property
    def part(self) -> Path:
        """Folder of what is unfinished."""
        return self.picture.with_name(f'{self.picture.name}.part')

    @property
    def state(self) -> Path:
        """State of the optimisation, see stylize's `save`."""
        return self.part / 'state'

    @property
    def frames(self) -> Path:
        """Folder of the frames of the video."""
        return self.part / 'frames'

    @property
    def preview(self) -> Path:
        """Picture so far, for people to watch."""
        return self.picture.with_name(f'{self.picture.stem}.preview{self.picture.suffix}')

    @property
    def last_good(self) -> Path:
        """Picture before the step that failed."""
        return self.picture.with_name(f'{self.picture.stem}.last_good{self.picture.suffix}')

    @property
    def video(self) -> Path:
        """How the picture formed."""
        return self.picture.with_suffix('.mp4')

    def begin(self, resume: bool) -> None:
        """Make `part`, empty unless it is to be gone on with. Raises OutputError."""
        try:
            if not resume:
                self.clear()
            self.part.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise OutputError(f'{self.part}: cannot be written: {error}') from error

    def clear(self) -> None:
        """Remove `part`."""
        if self.part.exists():
            shutil.rmtree(self.part)


def plan(contents: Sequence[Path], out: Path) -> list[Output]:
    """Return what to make of files and folders of pictures.

    `out` with the ending of a picture names that of a single content; anything else is a folder,
    for a PNG of each by its name. Raises OutputError, and PictureFileError for a folder without
    pictures.
    """
    found = [path for content in contents
             for path in (pictures_in(content) if is_folder(content) else [content])]
    if out.suffix.lower() in ENDINGS and not is_folder(out):
        if len(contents) > 1 or is_folder(contents[0]):
            raise OutputError(f'-o is {out}; expected a folder for {len(found)} pictures')
        outputs = [Output(found[0], out)]
    elif is_file(out):
        raise OutputError(f'-o is {out}, a file; expected a folder, or a name that ends in one '
                          f'of {ENDINGS}')
    else:
        outputs = _in_folder(found, out)
    for output in outputs:
        if output.picture.resolve() == output.content.resolve():
            raise OutputError(f'-o: {output.content} would be overwritten; choose another place')
    return outputs


def _in_folder(contents: list[Path], folder: Path) -> list[Output]:
    outputs = [Output(path, folder / f'{path.stem}.png') for path in contents]
    times = Counter(output.picture for output in outputs)
    twice = [str(output.content) for output in outputs if times[output.picture] > 1]
    if twice:
        raise OutputError(f'{", ".join(twice)} would all become one file; rename them, or '
                          'stylise them into different folders')
    return outputs
