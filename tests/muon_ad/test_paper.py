"""docs/paper.md names only what exists."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / 'ros_ws/src/muon_ad/muon_ad'
TEXT = (ROOT / 'docs/paper.md').read_text(encoding='utf-8')
NAME = re.compile(r'`((?:\w+\.)+\w+)`')
SUBPACKAGES = ('distill', 'networks', 'optim', 'prune', 'runtime', 'train')


def named() -> list[str]:
    """Return the modules and objects of muon_ad that the document names, each once."""
    names = set(NAME.findall(TEXT))
    return sorted(name for name in names if name.split('.')[0] in (*SUBPACKAGES, 'sync'))


def defined(file: Path) -> set[str]:
    """Return what a module defines at its top level, without importing it."""
    body = ast.parse(file.read_text(encoding='utf-8')).body
    return {node.name for node in body if isinstance(node, ast.ClassDef | ast.FunctionDef)}


def test_the_document_names_enough_to_be_checked():
    assert len(named()) > 15


@pytest.mark.parametrize('name', named())
def test_what_the_document_names_is_there(name):
    path = PACKAGE.joinpath(*name.split('.'))
    if path.is_dir() or path.with_suffix('.py').is_file():
        return
    assert path.name in defined(path.parent.with_suffix('.py')), name


@pytest.mark.parametrize('script', sorted(set(re.findall(r'`(benchmarks/\w+\.py)`', TEXT))))
def test_the_scripts_are_there(script):
    assert (ROOT / script).is_file(), f'docs/paper.md names {script}'
