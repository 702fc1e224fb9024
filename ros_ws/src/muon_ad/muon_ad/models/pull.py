"""`muon-ad models pull`: weights of torchvision's detectors, by name, into torch's cache.

Everything else of the project works without a network; this is the one command that needs it,
unless it is given the file. `muon-ad models import` then makes a model package of them.
"""

import argparse
import shutil
import sys
import urllib.error
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
import torchvision
from torch.hub import download_url_to_file

from muon_ad.export import ExportError
from muon_ad.runtime.package import sha256_of


class OfflineError(OSError):
    """The network, or the server, cannot be reached."""


class HashError(ValueError):
    """A file is not the one that was expected, or was changed on the way."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument('name', help='torchvision detector, such as ssdlite320_mobilenet_v3_large '
                        'or fasterrcnn_mobilenet_v3_large_320_fpn, or its weights as published '
                        '(SSDLite320_MobileNet_V3_Large_Weights.COCO_V1)')
    parser.add_argument('--file', type=Path, help='take this file instead of downloading')
    parser.add_argument('--cache', type=Path, metavar='FOLDER',
                        help="where to keep it (default: torch's cache, where `models import` "
                        'looks)')


def run(args: argparse.Namespace) -> int:
    """Fetch, check and keep the weights; returns 1 where the network cannot be reached."""
    url = weights_url(args.name)
    cache = args.cache or Path(torch.hub.get_dir()) / 'checkpoints'
    target = cache / url.rsplit('/', 1)[1]
    try:
        fetch(url, target, args.file)
    except OfflineError as error:
        print(f'muon-ad models pull: {error}', file=sys.stderr)
        return 1
    print(f'{target}: sha256 {sha256_of(target)}')
    return 0


def weights_url(name: str) -> str:
    """Return where torchvision publishes the weights. Raises ExportError for an unknown name."""
    models = torchvision.models.list_models(module=torchvision.models.detection)
    published = {str(entry): entry.url for model in models
                 for entry in torchvision.models.get_model_weights(model)}
    if name in published:
        return published[name]
    if name in models:
        return torchvision.models.get_model_weights(name).DEFAULT.url
    raise ExportError(f'{name!r} is not known to torchvision; expected one of {models}, or of '
                      f'{sorted(published)}')


def fetch(url: str, target: Path, file: Path | None = None) -> None:
    """Put a published file at `target`, from the local `file` or by downloading it.

    Published names end in the first digits of the SHA-256, which are compared; what is at `target`
    already and matches is kept. Raises OfflineError, HashError, OSError.
    """
    wanted = url.rsplit('-', 1)[1].split('.')[0]
    if file is not None and not file.is_file():
        raise OSError(f'{file}: no such file; expected the weights from {url}')
    if file is None and target.is_file() and sha256_of(target).startswith(wanted):
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(dir=target.parent) as folder:
        arrived = Path(folder) / target.name
        if file is not None:
            shutil.copyfile(file, arrived)
        else:
            _download(url, arrived)
        found = sha256_of(arrived)
        if not found.startswith(wanted):
            raise HashError(f'{file or url}: sha256 is {found}; expected one that begins with '
                            f'{wanted}: the file was changed, is incomplete or is another one')
        arrived.replace(target)


def _download(url: str, target: Path) -> None:
    try:
        download_url_to_file(url, str(target), progress=sys.stderr.isatty())
    except (urllib.error.URLError, TimeoutError, ConnectionError) as error:
        reason = getattr(error, 'reason', error)
        raise OfflineError(
            f'{url} cannot be reached ({reason}): this machine seems to be offline; fetch the '
            'file on another one and give it with --file'
        ) from error
