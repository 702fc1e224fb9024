from pathlib import Path

from setuptools import find_packages
from setuptools import setup

package_name = 'muon_ad_nodes'
share = Path('share') / package_name

NODES = (
    'realsense_camera', 'csi_camera', 'bag_player', 'style_transfer', 'object_detector',
    'stylizer', 'frame_sync', 'supervisor',
)


def tree(folder: str) -> list[tuple[str, list[str]]]:
    """List every file below `folder` (a link to the top level) for installation beside us."""
    here = Path(__file__).parent
    files: dict[str, list[str]] = {}
    for path in sorted((here / folder).rglob('*')):
        if path.is_file():
            relative = path.relative_to(here)
            files.setdefault(str(share / relative.parent), []).append(str(relative))
    return list(files.items())


setup(
    name=package_name,
    version='0.1.0',
    packages=find_packages(),
    data_files=[
        ('share/ament_index/resource_index/packages', [f'resource/{package_name}']),
        (str(share), ['package.xml']),
        *tree('launch'),
        *tree('models'),
    ],
    python_requires='>=3.10',
    maintainer='Muon-AD maintainers',
    maintainer_email='maintainers@muon-ad.invalid',
    description='Lifecycle nodes for stylised images and detected objects from several cameras.',
    license='Apache-2.0',
    entry_points={
        'console_scripts': [f'{node} = muon_ad_nodes.main:{node}' for node in NODES],
    },
)
