"""Run multitask.launch.xml on built-in input or your own, and record what it does."""

import argparse
import importlib
import os
import sys
import time
from pathlib import Path

from ament_index_python.packages import get_package_share_directory

from muon_ad.runtime.package import load_package
from muon_ad.runtime.package import PackageError
from muon_ad_nodes.demo.inputs import check_style
from muon_ad_nodes.demo.inputs import choose_input
from muon_ad_nodes.demo.inputs import InputError
from muon_ad_nodes.demo.suite import Suite


def parse_arguments(arguments: list[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog='muon_ad_nodes.demo', description=__doc__)
    parser.add_argument('--input', default='', help='video, folder of images, or camera number')
    parser.add_argument('--style', default='', help='image file or name of a built-in style')
    parser.add_argument(
        '--duration', type=float, default=None,
        help='seconds to run once all tasks deliver; default 30, or to the end of a video',
    )
    parser.add_argument('--out', type=Path, default=Path('out/demo'), help='folder of the results')
    return parser.parse_args(arguments)


def main() -> int:
    """Check the input, then run."""
    arguments = parse_arguments()
    share = Path(get_package_share_directory('muon_ad_nodes'))
    try:
        chosen = choose_input(arguments.input)
        styles = load_package(share / 'models' / 'style_default').styles
        style = check_style(arguments.style, tuple(styles))
        if arguments.duration is not None and not arguments.duration > 0:
            raise InputError(f'duration is {arguments.duration}; expected seconds above 0')
    except (InputError, PackageError) as error:
        print(f'demo: {error}', file=sys.stderr)
        return 2
    arguments.out.mkdir(parents=True, exist_ok=True)
    # The recorder takes the suite's images, so it needs the same transport.
    os.environ.setdefault('FASTDDS_DEFAULT_PROFILES_FILE', str(share / 'launch' / 'fastdds.xml'))
    launch = ('multitask.launch.xml', *chosen.arguments, *([f'style:={style}'] * bool(style)))
    begun = time.monotonic()
    suite = Suite(launch, arguments.out / 'log.txt')
    try:
        # Imports rclpy and OpenCV, while the suite starts already.
        run = importlib.import_module('muon_ad_nodes.demo.run')
        return run.Demo(suite, chosen, arguments.duration, arguments.out, begun).run()
    except KeyboardInterrupt:
        print('demo: interrupted', file=sys.stderr)
        return 130
    finally:
        suite.end()

