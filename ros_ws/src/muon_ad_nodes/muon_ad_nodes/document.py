"""Writes the table of all parameters, from their declarations: `make docs`."""

import importlib
import sys

from muon_ad_nodes.parts.lifecycle import COMMON
from muon_ad_nodes.parts.parameters import Parameter

NODES = (
    'realsense_camera', 'csi_camera', 'bag_player', 'style_transfer', 'object_detector',
    'stylizer', 'frame_sync', 'supervisor',
)

HEADER = """# Parameters

Generated from the declarations in the code by `make docs`; a test compares the two. *Live*
parameters take effect when they are set; the others are read when the node is configured.
"""


def parameters_document() -> str:
    """Return docs/parameters.md."""
    sections = [HEADER, section('Every node', COMMON)]
    for name in NODES:
        node = importlib.import_module(f'muon_ad_nodes.nodes.{name}')
        sections.append(section(f'`{name}`', node.PARAMETERS))
    return '\n'.join(sections)


def section(title: str, parameters: tuple[Parameter, ...]) -> str:
    """Return the table of one node in Markdown."""
    rows = [
        f'## {title}', '', '| name | type | default | accepts | live | what it does |',
        '|---|---|---|---|---|---|',
    ]
    for parameter in parameters:
        accepts = parameter.expected if parameter.range or parameter.choices else ''
        cells = (
            f'`{parameter.name}`', parameter.type_name, f'`{parameter.default!r}`',
            accepts.replace('|', r'\|'), 'yes' if parameter.dynamic else '',
            parameter.description.replace('|', r'\|'),
        )
        rows.append('| ' + ' | '.join(cells) + ' |')
    return '\n'.join(rows) + '\n'


if __name__ == '__main__':
    sys.stdout.write(parameters_document())
