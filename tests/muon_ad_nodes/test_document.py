"""The documentation says what the code does."""

import importlib
import re
from pathlib import Path

import pytest

from muon_ad_nodes.document import NODES
from muon_ad_nodes.document import parameters_document
from muon_ad_nodes.parts.lifecycle import COMMON

ROOT = Path(__file__).resolve().parents[2]


def test_parameter_table_is_up_to_date():
    written = (ROOT / 'docs' / 'parameters.md').read_text(encoding='utf-8')
    assert written == parameters_document(), 'run `make docs`'


@pytest.mark.parametrize('name', NODES)
def test_every_parameter_is_described_and_its_default_accepted(name):
    parameters = importlib.import_module(f'muon_ad_nodes.nodes.{name}').PARAMETERS
    names = [parameter.name for parameter in (*parameters, *COMMON)]
    assert len(names) == len(set(names))
    for parameter in parameters:
        assert len(parameter.description) > 10
        assert parameter.check(parameter.default) == parameter.default


def test_readme_names_only_what_exists():
    readme = (ROOT / 'README.md').read_text(encoding='utf-8')
    targets = set(re.findall(r'\bmake ([a-z]+)', readme))
    makefile = (ROOT / 'Makefile').read_text()
    assert targets <= set(re.findall(r'^([a-z]+):', makefile, re.MULTILINE))
    for path in re.findall(r'\]\((?!http)([^)#]+)', readme):
        assert (ROOT / path).exists(), f'README links to {path}'
    for script in re.findall(r'benchmarks/\w+\.py', readme):
        assert (ROOT / script).exists(), f'README names {script}'
    for launch in re.findall(r'[\w]+\.launch\.xml', readme):
        assert (ROOT / 'launch' / launch).exists(), f'README names {launch}'
    parameters = parameters_document()
    for name in re.findall(r'`((?:realtime|[a-z_]+)\.[a-z_]+)`', readme):
        is_file = name.endswith(('.yaml', '.json', '.xml'))
        if not is_file and not name.startswith('muon_ad.'):
            assert f'`{name}`' in parameters, f'README names the parameter {name}'
