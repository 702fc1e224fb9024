"""`muon-ad replay`: networks over a bag, recorded, and compared with a stored run."""

import argparse
import math
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

from rich.console import Console
from tqdm import tqdm

from muon_ad.bags import open_bag
from muon_ad.faults import FaultPlan
from muon_ad.replay import pictures
from muon_ad.replay import report
from muon_ad.replay.compare import Comparer
from muon_ad.replay.compare import Comparison
from muon_ad.replay.compare import Tolerances
from muon_ad.replay.error import ReplayError
from muon_ad.replay.networks import Choice
from muon_ad.replay.networks import load
from muon_ad.replay.networks import MOST_THREADS
from muon_ad.replay.networks import THREADS_LIMIT
from muon_ad.replay.pipeline import Frame
from muon_ad.replay.pipeline import Replay
from muon_ad.replay.record import Naming
from muon_ad.replay.record import read_recording
from muon_ad.replay.record import Recorder
from muon_ad.replay.record import Recording
from muon_ad.replay.topics import choose
from muon_ad.screen import screen

# Of the command as a whole; 1 is an answer (a bag in part unreadable is one that is found wrong),
# 2 means that there is none.
SAME, DIFFERS, CANNOT = 0, 1, 2

_TOLERANCES = (
    ('iou', float, 'least overlap of a box with its stored one'),
    ('score', float, 'largest difference of a score'),
    ('position-m', float, 'largest distance of a position, in metres'),
    ('mean-abs', float, 'largest mean difference of a stylised image, in grey levels'),
    ('ssim', float, 'least structural similarity of a stylised image'),
    ('stamp-ms', float, 'largest difference of stamps'),
    ('value', float, 'largest difference of a number in messages of other types'),
    ('count', int, 'how many results of a topic may be missing or too many'),
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument('bag', type=Path, help='rosbag2 folder, .mcap, .db3 or ROS 1 .bag')
    topics = parser.add_argument_group('what is looked at')
    topics.add_argument('--image', action='append', default=[], metavar='TOPIC',
                        help='image topic, again for several (default: all colour images)')
    topics.add_argument('--depth', default='', metavar='TOPIC',
                        help='aligned depth (default: where the name says that it is)')
    topics.add_argument('--camera-info', default='', metavar='TOPIC',
                        help='calibration (default: camera_info beside the image)')
    topics.add_argument('--start', type=float, default=0.0, metavar='S', help='seconds to skip')
    topics.add_argument('--duration', type=float, metavar='S',
                        help='seconds to play (default: to the end)')
    topics.add_argument('--fault', action='append', default=[], metavar='TEXT',
                        help="fault to inject, such as 'stall at=1 for=0.5'; again for several; "
                        'streams: color, color_info, aligned')
    topics.add_argument('--seed', type=int, default=0, help='of faults that use chance')
    _add_networks(parser.add_argument_group('networks'))
    output = parser.add_argument_group('results')
    output.add_argument('--record', type=Path, metavar='OUT', help='write them to OUT, an .mcap')
    output.add_argument('--raw', action='store_true',
                        help='record stylised images raw instead of as PNG (both are lossless)')
    output.add_argument('--every', type=int, default=1, metavar='N',
                        help='record one stylised image in N (default 1); detections all')
    output.add_argument('--remap', action='append', default=[], metavar='FROM:=TO',
                        help='name a topic of results otherwise')
    output.add_argument('--picture', type=Path, metavar='PNG', help='write a contact sheet')
    expect = parser.add_argument_group(
        'comparison', 'exit status 0: same, 1: differs, or a damaged bag; 2: cannot be compared'
    )
    expect.add_argument('--expect', type=Path, metavar='GOLDEN',
                        help='compare with what --record wrote')
    expect.add_argument('--worst', type=Path, default=Path('replay_worst.png'), metavar='PNG',
                        help='picture of the worst frame where they differ (default: %(default)s)')
    for name, kind, text in _TOLERANCES:
        default = getattr(Tolerances, name.replace('-', '_'))
        expect.add_argument(f'--tolerance-{name}', type=kind, default=default, metavar='X',
                            help=f'{text} (default: {default:g})')


def _add_networks(group: argparse._ArgumentGroup) -> None:
    default = Choice()
    group.add_argument('--only', choices=('style', 'detection'), help='leave the other task out')
    group.add_argument('--style-model', default=default.style_model, metavar='PACKAGE',
                       help='folder or name of a package (default: %(default)s)')
    group.add_argument('--style', default='', help='built-in style or picture')
    group.add_argument('--style-variant', default='', metavar='NAME', help='level of detail')
    group.add_argument('--detector-model', default=default.detector_model, metavar='PACKAGE',
                       help='folder or name of a package (default: %(default)s)')
    group.add_argument('--detector-variant', default='', metavar='NAME', help='level of detail')
    group.add_argument('--score-threshold', type=float, default=default.score_threshold,
                       metavar='X', help='least confidence (default: %(default)s)')
    group.add_argument('--class', action='append', default=[], dest='classes', metavar='NAME',
                       help='class to report, again for several (default: all)')
    group.add_argument('--models', type=Path, metavar='FOLDER',
                       help='where packages are named (default: the installed ones)')
    group.add_argument('--threads', type=int, default=default.threads, metavar='N',
                       help='threads inside an operator (default: one a core, up to '
                       f'{MOST_THREADS})')
    group.add_argument('--providers', default='cpu', metavar='A,B',
                       help='execution providers in order of preference (default: %(default)s)')


def run(args: argparse.Namespace) -> int:
    """Replay, record and compare; return SAME, DIFFERS, or CANNOT (through a ValueError)."""
    _check(args)
    console = screen()
    # Read before the slow part: a golden that is not one is told at once.
    tolerances = _tolerances(args)
    golden = _golden(args.expect) if args.expect else None
    networks = load(_choice(args))
    faults = FaultPlan(args.fault, args.seed) if args.fault else None
    with open_bag(args.bag) as bag:
        streams, notes = choose(bag, args.image, args.depth, args.camera_info)
        replay = Replay(bag, streams, networks, args.start, args.duration, faults)
        replay.notes.update(dict.fromkeys(notes))
        naming = _naming(args.remap, replay)
        comparer = Comparer(golden, tolerances, networks.about) if golden else None
        sheet = pictures.Sheet() if args.picture else None
        summaries, wall_s = _play(args, replay, naming, comparer, sheet)
    frames = sum(summary.frames for summary in summaries.values())
    if not frames:
        raise ReplayError(f'{args.bag}: no image was played. {" ".join(replay.notes)} '
                          f'{bag.trouble}'.strip())
    console.print(report.summary_table(summaries, wall_s))
    for line in (*replay.notes, *report.drop_lines(summaries), *_fault_lines(faults)):
        _say(console, line)
    if bag.trouble:
        _say(console, f'{args.bag} is damaged; what is readable was played: {bag.trouble}')
    if args.record:
        _say(console, str(args.record))
    comparison = comparer.finish() if comparer else None
    same = comparison is None or _conclude(console, args, comparison)
    status = SAME if same and not bag.trouble else DIFFERS
    try:
        _save_pictures(console, args, sheet, comparison)
    except ReplayError as error:
        if status == SAME:
            raise
        _say(console, str(error))       # no picture takes an answer back
    return status


def _play(
    args: argparse.Namespace, replay: Replay, naming: Naming, comparer: Comparer | None,
    sheet: pictures.Sheet | None,
) -> tuple[dict, float]:
    """Run to the end; return the summary of each stream, and the seconds it took."""
    summaries = {stream: report.Summary() for stream in replay.streams}
    takers: list[Callable[[Frame], None]] = [lambda f: summaries[f.stream].add(f)]
    begun = time.perf_counter()
    with ExitStack() as stack:
        if args.record:
            about = {**replay.networks.about, 'bag': args.bag.name}
            recorder = Recorder(args.record, naming, about, raw=args.raw, every=args.every)
            takers.append(stack.enter_context(recorder).write)
        if comparer is not None:
            takers.append(lambda f: compare_frame(comparer, naming, f))
        if sheet is not None:
            takers.append(sheet.add)
        total = replay.images if not (args.start or args.duration) else None
        for frame in tqdm(
            replay.frames(), total=total, unit='image', desc=args.bag.name, disable=None
        ):
            for take in takers:
                take(frame)
    return summaries, time.perf_counter() - begun


def compare_frame(comparer: Comparer, naming: Naming, frame: Frame) -> None:
    """Hold the results of one image against the stored ones."""
    if frame.stylised is not None:
        topic = naming.style(frame.stream)
        comparer.add(topic, frame.number, frame.stamp_ns, frame.stylised, frame.rgb)
    if frame.detections is not None:
        topic = naming.detections(frame.stream)
        comparer.add(topic, frame.number, frame.stamp_ns, frame.detections, frame.rgb)


def _conclude(console: Console, args: argparse.Namespace, comparison: Comparison) -> bool:
    """Tell how the results compare; return whether they are the same."""
    console.print(report.comparison_table(comparison))
    for line in report.comparison_lines(comparison):
        _say(console, line)
    verdict = f'same as {args.expect}, within tolerances'
    _say(console, verdict if comparison.same else f'differs from {args.expect}')
    return comparison.same


def _save_pictures(
    console: Console, args: argparse.Namespace, sheet: pictures.Sheet | None,
    comparison: Comparison | None,
) -> None:
    """Raises ReplayError where a picture cannot be written."""
    if comparison and not comparison.same and pictures.can_draw(comparison.worst):
        pictures.save(args.worst, pictures.worst_picture(comparison.worst))
        _say(console, f'the worst frame, expected and got: {args.worst}')
    if sheet is not None:
        sheet.save(args.picture)
        _say(console, str(args.picture))


def _golden(path: Path) -> Recording:
    if not path.exists():
        raise ReplayError(f'golden {path}: no such file; make it with --record {path}')
    return read_recording(path)


def _say(console: Console, line: str) -> None:
    console.print(line, markup=False, highlight=False, soft_wrap=True)


def _fault_lines(faults: FaultPlan | None) -> list[str]:
    if faults is None:
        return []
    counts = ', '.join(f'{kind} {count}' for kind, count in sorted(faults.counts.items()))
    return [f'messages touched by faults: {counts or "none"}']


def _check(args: argparse.Namespace) -> None:
    for name, least, most in (
        ('threads', 0, THREADS_LIMIT), ('every', 1, math.inf), ('seed', 0, math.inf),
    ):
        value = getattr(args, name)
        if not least <= value <= most:
            expected = f'{least} or more' if most == math.inf else f'{least} to {most}'
            raise ReplayError(f'--{name} is {value}; expected {expected}')
    for name, wanted in (('picture', args.picture), ('worst', args.expect)):
        if wanted is not None:
            _check_picture(name, getattr(args, name))


def _check_picture(option: str, path: Path) -> None:
    """Raise ReplayError for a picture that cannot be written when the run is over."""
    if not pictures.can_save(path):
        raise ReplayError(f'--{option} {path}: expected a name such as sheet.png')
    if why := pictures.refused(path):
        raise ReplayError(f'--{option} {path}: cannot be written: {why}; choose another place')


def _choice(args: argparse.Namespace) -> Choice:
    return Choice(
        style_model='' if args.only == 'detection' else args.style_model,
        style=args.style, style_variant=args.style_variant,
        detector_model='' if args.only == 'style' else args.detector_model,
        detector_variant=args.detector_variant, score_threshold=args.score_threshold,
        classes=tuple(args.classes), providers=tuple(args.providers.split(',')),
        threads=args.threads, models=args.models,
    )


def _tolerances(args: argparse.Namespace) -> Tolerances:
    names = [name.replace('-', '_') for name, _, _ in _TOLERANCES]
    return Tolerances(**{name: getattr(args, f'tolerance_{name}') for name in names})


def _naming(rules: list[str], replay: Replay) -> Naming:
    plain, pairs = Naming(), {}
    for rule in rules:
        before, arrow, after = rule.partition(':=')
        if not (before.startswith('/') and arrow and after.startswith('/')):
            raise ReplayError(f'--remap {rule}: expected /from:=/to')
        if pairs.setdefault(before, after) != after:
            raise ReplayError(f'--remap {rule}: {before} is {pairs[before]} already')
    naming = Naming(pairs)
    tasks = [name for name, network in (
        (plain.style, replay.networks.styler), (plain.detections, replay.networks.detector),
    ) if network is not None]
    naming.check([name(stream) for stream in replay.streams for name in tasks])
    return naming
