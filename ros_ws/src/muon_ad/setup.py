from setuptools import find_packages
from setuptools import setup

package_name = 'muon_ad'

setup(
    name=package_name,
    version='0.1.0',
    packages=find_packages(),
    package_data={
        'muon_ad.bags': ['muon_ad_msgs/*.msg'],
        'muon_ad.distill.quantise': ['configurations/*.json'],
    },
    data_files=[
        ('share/ament_index/resource_index/packages', [f'resource/{package_name}']),
        (f'share/{package_name}', ['package.xml']),
    ],
    python_requires='>=3.10',
    maintainer='Muon-AD maintainers',
    maintainer_email='maintainers@muon-ad.invalid',
    description='Style transfer and object detection in bounded time: runtime and training.',
    license='Apache-2.0',
    entry_points={
        'console_scripts': ['muon-ad = muon_ad.cli:main'],
        # Named as the module is, so that `pytest_plugins` and `-p` find it loaded.
        'pytest11': ['muon_ad.testing = muon_ad.testing'],
    },
)
