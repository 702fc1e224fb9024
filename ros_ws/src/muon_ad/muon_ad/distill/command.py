"""`muon-ad stylize`: redraws pictures in the style of another, at best quality."""

import argparse
import signal
import sys
from collections.abc import Callable
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from dataclasses import fields
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import FrameType

import numpy as np
import torch
from tqdm import tqdm

from muon_ad.distill.backbone import Backbone
from muon_ad.distill.backbone import load_backbone
from muon_ad.distill.devices import choose_device
from muon_ad.distill.devices import DEVICES
from muon_ad.distill.outputs import Output
from muon_ad.distill.outputs import plan
from muon_ad.distill.result import NotFiniteError
from muon_ad.distill.result import Progress
from muon_ad.distill.result import Result
from muon_ad.distill.settings import ATTENTIONS
from muon_ad.distill.settings import DTYPES
from muon_ad.distill.settings import LOSSES
from muon_ad.distill.settings import OPTIMIZERS
from muon_ad.distill.settings import REFERENCE
from muon_ad.distill.settings import Settings
from muon_ad.distill.settings import STARTS
from muon_ad.distill.stylize import stylize
from muon_ad.distill.video import keep_frame
from muon_ad.distill.video import write_video
from muon_ad.picture_files import read_picture
from muon_ad.picture_files import write_picture

INTERRUPTED = 130
# A video of about so many frames, where the steps allow it.
_FRAMES = 30


class MemoryLackError(ValueError):
    """The device has not the memory for the settings."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options; those of the settings are named as the fields of Settings."""
    parser.add_argument('content', nargs='+', type=Path,
                        help='pictures to redraw, or folders of them')
    parser.add_argument('style', type=Path, help='picture in the style that they shall have')
    parser.add_argument('-o', '--out', type=Path, required=True,
                        help='picture to write; a folder where there are several')
    watch = parser.add_argument_group('while it works')
    watch.add_argument('--preview', action='store_true',
                       help='keep OUT.preview up to date with the picture so far')
    watch.add_argument('--video', action='store_true',
                       help='write an MP4 of how the picture forms, beside it')
    watch.add_argument('--preview-every', type=int, metavar='N',
                       help=f'steps between previews (default {Settings.preview_every}; for a '
                       f'video so that it has {_FRAMES} frames)')
    watch.add_argument('--save-every', type=int, metavar='N',
                       help=f'steps between saved states (default {Settings.save_every})')
    watch.add_argument('--resume', action='store_true',
                       help='go on with what an interrupted or killed run left beside OUT; '
                       'pictures that are there are kept')
    _add_settings(parser.add_argument_group('how to stylise'))
    machine = parser.add_argument_group('on what')
    machine.add_argument('--backbone', type=Path, metavar='FOLDER',
                         help='local diffusers pipeline, such as Stable Diffusion (default: the '
                         'small one that is shipped)')
    machine.add_argument('--attention', choices=ATTENTIONS,
                         help="that of the backbone's denoiser, or over the features of its "
                         'encoder, if any (default: as the backbone recommends)')
    machine.add_argument('--device', choices=DEVICES, default='auto',
                         help='auto (default): a GPU where there is one')
    machine.add_argument('--threads', type=int, metavar='N',
                         help="CPU threads (default: torch's choice)")


def _add_settings(group: argparse._ArgumentGroup) -> None:
    default = Settings()
    for name, kind, text in (
        ('steps', int, 'steps of the optimisation'),
        ('optimizer', str, f'one of {", ".join(OPTIMIZERS)}'),
        ('lr', float, 'learning rate'),
        ('content-weight', float, 'what holds the content; 0: nothing'),
        ('loss', str, f'one of {", ".join(LOSSES)}: on attention outputs, or maps'),
        ('timesteps', int, 'time-steps to spread the steps over'),
        ('conflict', float, 'cosine below which the style gradient yields to the content'),
        ('gpn-share', float, 'share of the steps with a predicted gradient'),
        ('clip', str, 'local folder of a CLIP vision model that holds the content, too'),
        ('clip-weight', float, 'weight of that'),
        ('size', int, 'the result has up to SIZE x SIZE pixels, and no more than CONTENT'),
        ('start', str, f'one of {", ".join(STARTS)}'),
        ('seed', int, 'of noise'),
        ('dtype', str, f'one of {", ".join(DTYPES)}: what the network computes in'),
    ):
        field = name.replace('-', '_')
        value = 'as suits the backbone' if field in REFERENCE else getattr(default, field)
        group.add_argument(f'--{name}', type=kind, metavar=name.rpartition('-')[2].upper(),
                           help=f'{text} (default: {"none" if value is None else value})')
    group.add_argument('--layers', metavar='A,B', type=lambda text: tuple(text.split(',')),
                       help='self-attention layers (default: the last six)')
    group.add_argument('--noised', action='store_true', default=None,
                       help='add the noise of each time-step to picture, style and content')
    group.add_argument('--balance', action='store_true', default=None,
                       help="scale the content gradient to the style gradient's norm")


def run(args: argparse.Namespace) -> int:
    """Stylise all contents; 1 where some of several failed, which are named."""
    settings = settings_of(args)
    outputs = plan(args.content, args.out)
    style = read_picture(args.style)
    if args.threads is not None:
        _set_threads(args.threads)
    backbone = load_backbone(
        args.backbone, choose_device(args.device), getattr(torch, settings.dtype),
        attention=args.attention,
    )
    maker = _Maker(style, backbone, settings, args.preview, args.video, args.resume)
    failures = 0
    for number, output in enumerate(outputs, 1):
        title = f'{number}/{len(outputs)} ' * (len(outputs) > 1) + output.content.name
        try:
            if not maker.make(output, title):
                return INTERRUPTED
        except ValueError as error:
            if len(outputs) == 1:
                raise
            print(f'muon-ad stylize: {error}', file=sys.stderr)
            failures += 1
    if failures:
        print(f'{failures} of {len(outputs)} pictures could not be made', file=sys.stderr)
    return 1 if failures else 0


def settings_of(args: argparse.Namespace) -> Settings:
    """Return the settings in the options; raises SettingsError."""
    given = {field.name: value for field in fields(Settings)
             if (value := getattr(args, field.name, None)) is not None}
    settings = Settings(**given)
    if args.video and args.preview_every is None:
        every = max(1, min(settings.preview_every, settings.steps // _FRAMES))
        return replace(settings, preview_every=every)
    return settings


def _set_threads(number: int) -> None:
    if number < 1:
        raise ValueError(f'--threads is {number}; expected 1 or more')
    torch.set_num_threads(number)


@dataclass(frozen=True)
class _Maker:
    """Makes one picture after the other, in one style."""

    style: np.ndarray
    backbone: Backbone
    settings: Settings
    preview: bool
    video: bool
    resume: bool

    def make(self, output: Output, title: str) -> bool:
        """Make a picture and what belongs to it; False: it was interrupted.

        Raises ValueErrors that say what was wrong, and where the last good picture and state are.
        """
        content = read_picture(output.content)
        resume = self.resume and output.state.exists()
        if self.resume and not resume and output.picture.exists():
            print(f'{output.picture}: there already, kept')
            return True
        if output.state.exists() and not resume:
            print(f'{output.part}: what an earlier run left is discarded; --resume would go on '
                  'with it', file=sys.stderr)
        output.begin(resume)
        with tqdm(total=self.settings.steps, desc=title, unit='step', disable=None) as bar:
            result = self._stylize(output, content, resume, bar)
        if result.cancelled:
            print(f'interrupted after step {result.steps}; the state is kept in {output.state}, '
                  'and --resume goes on with it', file=sys.stderr)
            return False
        self._finish(output, result)
        return True

    def _stylize(self, output: Output, content: np.ndarray, resume: bool, bar: tqdm) -> Result:
        """Call `stylize`; what goes wrong on the way is told with what is left of it."""
        try:
            with interruption() as interrupted:
                return stylize(
                    content, self.style, self.backbone, self.settings,
                    progress=partial(self._follow, output, bar), cancel=interrupted,
                    save=output.state, resume=output.state if resume else None,
                )
        except NotFiniteError as error:
            write_picture(output.last_good, error.image)
            kept = f', the last state in {output.state}' * output.state.exists()
            raise ValueError(f'{output.content}: {error}; the picture before it is in '
                             f'{output.last_good}{kept}') from error
        except torch.OutOfMemoryError as error:
            raise MemoryLackError(
                f'--size is {self.settings.size}; there is not the memory for it, take a smaller '
                f'one ({str(error).splitlines()[0]})'
            ) from error

    def _follow(self, output: Output, bar: tqdm, progress: Progress) -> None:
        """Show a step, and keep the picture so far where that was asked for."""
        if not bar.n:       # of a run that goes on, what was done before is not of this time
            bar.initial = bar.n = progress.step - 1
        losses = f'style {progress.style_loss:.4g}, content {progress.content_loss:.4g}'
        bar.set_postfix_str(losses, refresh=False)
        bar.update()
        if not (progress.preview_due and (self.preview or self.video)):
            return
        shown = progress.preview()
        if self.preview:
            write_picture(output.preview, shown)
        if self.video:
            keep_frame(output.frames, progress.step, shown)

    def _finish(self, output: Output, result: Result) -> None:
        write_picture(output.picture, result.image)
        if self.preview:
            write_picture(output.preview, result.image)
        if self.video:
            keep_frame(output.frames, result.steps, result.image)
            write_video(output.video, output.frames)
        output.clear()
        last, (height, width) = result.history[-1], result.image.shape[:2]
        print(f'{output.picture}: {width}x{height}, {result.steps} steps in '
              f'{result.seconds:.1f} s, style {last.style:.4g}, content {last.content:.4g}')


@contextmanager
def interruption() -> Iterator[Callable[[], bool]]:
    """Yield a function that tells whether SIGINT or SIGTERM has come; a second one ends at once.

    So that the state of the step that was reached can be saved.
    """
    came = []

    def note(number: int, _frame: FrameType | None) -> None:
        came.append(number)
        for each, handler in before.items():
            signal.signal(each, handler)

    before = {each: signal.signal(each, note) for each in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield lambda: bool(came)
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)
