"""Where the shipped model packages are: installed beside the nodes, or in a checkout."""

import os
from pathlib import Path

from muon_ad.paths import expanded
from muon_ad.paths import is_folder
from muon_ad.runtime.package import PackageError

_SHARE = Path('share', 'muon_ad_nodes', 'models')
# ros_ws/src/muon_ad/muon_ad/runtime/installed.py; links of a workspace's build are followed.
_CHECKOUT = Path(__file__).resolve().parents[5] / 'models'


def models_folder() -> Path | None:
    """Return the folder of the shipped model packages; None where there is none.

    The sourced workspaces come first (AMENT_PREFIX_PATH, in order), then the checkout that this
    library is part of.
    """
    prefixes = filter(None, os.environ.get('AMENT_PREFIX_PATH', '').split(os.pathsep))
    candidates = [*(Path(prefix) / _SHARE for prefix in prefixes), _CHECKOUT]
    return next((folder for folder in candidates if folder.is_dir()), None)


def find_package(name: str, folder: Path | None = None) -> Path:
    """Return the folder of a package given by path, or by name among those in `folder`.

    `folder` is that of the shipped packages where it is None. Raises PackageError where there is
    neither.
    """
    path = expanded(name)
    if name and is_folder(path):
        return path
    folder = models_folder() if folder is None else folder
    if name and folder is not None and is_folder(folder / name):
        return folder / name
    known = sorted(file.parent.name for file in folder.glob('*/model.yaml')) if folder else []
    raise PackageError(
        f'model is {name!r}; expected a folder, or one of the packages {known} in {folder}'
    )
