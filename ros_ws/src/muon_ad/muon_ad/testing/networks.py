"""The networks over a bag, for tests: muon_ad.replay with its results kept."""

from collections.abc import Iterable
from pathlib import Path

from muon_ad.bags import open_bag
from muon_ad.faults import FaultPlan
from muon_ad.replay.error import ReplayError
from muon_ad.replay.networks import Choice
from muon_ad.replay.networks import load
from muon_ad.replay.networks import Networks
from muon_ad.replay.pipeline import Frame
from muon_ad.replay.pipeline import Replay
from muon_ad.replay.record import Naming
from muon_ad.replay.record import Recorder
from muon_ad.replay.topics import choose
from muon_ad.testing.options import check_names
from muon_ad.testing.options import listed
from muon_ad.testing.result import Outcome
from muon_ad.testing.result import Result


def replay_bag(
    bag: str | Path,
    recording: Path,
    *,
    image: str | Iterable[str] = (),
    depth: str = '',
    camera_info: str = '',
    faults: str | Iterable[str] = (),
    seed: int = 0,
    start_s: float = 0.0,
    duration_s: float | None = None,
    **choice: object,
) -> Result:
    """Run the networks over every image of a bag, in lock-step, and write `recording`.

    The topics and times are those of `muon-ad replay`; `choice` are the fields of
    muon_ad.replay.networks.Choice, such as score_threshold=0.5. The outputs are the stylised
    image, uint8 [H, W, 3], on `<image topic>/style`, and the DetectionArray on
    `<image topic>/detections`. Raises ValueError as the command tells in a line, and where no
    image is played; TypeError for an option that is not known.

    An image that a fault takes away is a drop; one that a fault doubles is worked on twice and
    counts once, as with a node.
    """
    check_names('run_networks', choice, replay_bag, Choice)
    networks = load(_choice(choice))
    faults = listed(faults)
    naming = Naming()
    with open_bag(bag) as opened:
        streams, notes = choose(opened, listed(image), depth, camera_info)
        plan = FaultPlan(faults, seed) if faults else None
        replay = Replay(opened, streams, networks, start_s, duration_s, plan)
        result = Result(Path(bag), recording, **_searched(networks))
        with Recorder(recording, naming, {**networks.about, 'bag': Path(bag).name}) as recorder:
            for frame in replay.frames():
                if not frame.again:
                    recorder.write(frame)
                    result.outcomes.append(_outcome(frame, naming))
        touched = ', '.join(f'{kind} {n}' for kind, n in plan.counts.items()) if plan else ''
        result.notes = [
            *notes, *replay.notes, *filter(None, [opened.trouble]),
            *([f'messages touched by faults: {touched}'] if touched else []),
        ]
    if not result.outcomes:
        raise ReplayError(f'{bag}: no image was played. {" ".join(result.notes)}'.strip())
    return result


def _choice(given: dict) -> Choice:
    several = {name: tuple(listed(given[name])) for name in ('classes', 'providers')
               if name in given}
    return Choice(**{**given, **several})


def _searched(networks: Networks) -> dict:
    if networks.detector is None:
        return {}
    return {
        'classes': networks.detector.reported,
        'score_threshold': networks.detector.score_threshold,
    }


def _outcome(frame: Frame, naming: Naming) -> Outcome:
    outputs = {}
    if frame.stylised is not None:
        outputs[naming.style(frame.stream)] = frame.stylised
    if frame.detections is not None:
        outputs[naming.detections(frame.stream)] = frame.detections
    return Outcome(
        frame.stream.image, frame.number, frame.time_ns, frame.stamp_ns, frame.latency_ms,
        frame.dropped, outputs,
    )
