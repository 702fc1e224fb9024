"""The command line `muon-ad`: one subcommand a module, imported only when it is asked for."""

import argparse
import importlib
import signal
import sys
from types import FrameType

# command: (module with add_arguments and run, help). Nested commands are written with a space.
COMMANDS = {
    'train': ('muon_ad.train.plan', 'show the plan of a training: --plan'),
    'train style': ('muon_ad.train.style', 'train the streaming style network'),
    'train backbone': ('muon_ad.train.backbone', 'train the backbone of the quality path'),
    'train detector': ('muon_ad.train.detector', 'train the object detector'),
    'prune detector': ('muon_ad.prune.detector', 'make a trained detector smaller'),
    'prune style': ('muon_ad.prune.style', 'make a trained style network smaller'),
    'prune unet': ('muon_ad.prune.unet_command', 'make a diffusers U-Net smaller'),
    'prune table': ('muon_ad.prune.unet_table', 'show the cost of U-Nets by part'),
    'evaluate style': ('muon_ad.metrics.style_report', 'judge a style package on photographs'),
    'export style': ('muon_ad.train.style_export', 'turn a checkpoint into a style package'),
    'export detector': ('muon_ad.train.detector_export',
                        'turn weights of the detector into variants of a package'),
    'export tensorrt': ('muon_ad.deploy.tensorrt', "print TensorRT's build command and options"),
    'export dla': ('muon_ad.deploy.dla', 'tell which layers a DLA runs, and which fall back'),
    'styles draw': ('muon_ad.styles.draw', 'draw the built-in style images anew'),
    'models list': ('muon_ad.models.listing', 'show the model packages in a folder'),
    'models show': ('muon_ad.models.show', 'show all about a model package'),
    'models verify': ('muon_ad.models.verify', 'check hashes, runs and weights of packages'),
    'models bench': ('muon_ad.models.bench', 'measure speed and memory of each variant'),
    'models pull': ('muon_ad.models.pull', "fetch the weights of one of torchvision's detectors"),
    'models import': ('muon_ad.models.importing', 'turn a detector of others into a package'),
    'replay': ('muon_ad.replay.command', 'run networks over a bag; record, compare'),
    'stylize': ('muon_ad.distill.command', 'redraw pictures in the style of another'),
    'quantize': ('muon_ad.precision.command', 'make INT8 or FP16 variants, and say their cost'),
    'quantize unet': ('muon_ad.distill.quantise.command', "quantise a denoiser's weights"),
    'quantize memory': ('muon_ad.distill.quantise.memory_command',
                        'compute the memory that a diffusion model takes'),
    'top': ('muon_ad_nodes.top.command', 'show all tasks that run, live or as JSON'),
    'trace': ('muon_ad_nodes.trace.command', 'trace where the time of each frame goes'),
}
# What the commands for nodes that run need, and the library does not.
_ROS = ('muon_ad_nodes', 'muon_ad_msgs', 'rclpy')


def main(arguments: list[str] | None = None) -> int:
    """Run one command; return its exit status.

    0 and 1 are a command's answers (1: it found something wrong, such as results that differ);
    2 means that it could not answer: an unknown command or option, bad input. Without
    `arguments` they are the process's own, which SIGTERM then ends in order.
    """
    if arguments is None:
        arguments = sys.argv[1:]
        signal.signal(signal.SIGTERM, _end)
    words = next((n for n in (2, 1) if ' '.join(arguments[:n]) in COMMANDS), 0)
    if not words:
        return _overview(arguments)
    command = ' '.join(arguments[:words])
    module_name, summary = COMMANDS[command]
    try:
        module = importlib.import_module(module_name)
        parser = argparse.ArgumentParser(prog=f'muon-ad {command}', description=summary)
        module.add_arguments(parser)
        return module.run(parser.parse_args(arguments[words:]))
    except ModuleNotFoundError as error:
        package = (error.name or '').partition('.')[0]
        if package not in _ROS:
            raise
        print(f'muon-ad {command}: there is no {package}, and this command needs ROS 2; source '
              "its setup file and the workspace's (ros_ws/install/setup.bash), or use "
              '.venv/bin/muon-ad after `make setup`', file=sys.stderr)
        return 2
    except (ValueError, OSError) as error:
        # The library's own errors are of these kinds and say what was expected.
        print(f'muon-ad {command}: {error}', file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(f'muon-ad {command}: interrupted', file=sys.stderr)
        return 130


def _end(number: int, _frame: FrameType | None) -> None:
    """Leave as after an error, so that what is half written is cleared away."""
    signal.signal(number, signal.SIG_IGN)       # once is enough
    sys.exit(128 + number)


def _overview(arguments: list[str]) -> int:
    width = max(map(len, COMMANDS))
    lines = [f'  {name:{width}}  {summary}' for name, (_, summary) in COMMANDS.items()]
    text = '\n'.join(['usage: muon-ad COMMAND [options]', *lines,
                      'muon-ad COMMAND --help shows the options of one.'])
    asked = not arguments or arguments[0] in ('-h', '--help')
    if not asked:
        text = f'muon-ad: no command {" ".join(arguments[:2])!r}\n{text}'
    print(text, file=sys.stdout if asked else sys.stderr)
    return 0 if asked else 2


if __name__ == '__main__':
    sys.exit(main())
