"""Which parameters Muon gets, and why."""

import pytest
import torch
from torch import nn

from muon_ad.networks.detector import DetectorNet
from muon_ad.networks.style import StyleConfig
from muon_ad.networks.style import StyleStudent
from muon_ad.optim.muon import Muon
from muon_ad.optim.split import split_parameters


class Odd(nn.Module):
    """One of everything."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(10, 6)
        self.stem = nn.Conv2d(3, 8, 3)
        self.deep = nn.Conv2d(8, 8, 3, groups=8)
        self.grouped = nn.Conv2d(8, 8, 3, groups=2)
        self.hidden = nn.Conv2d(8, 6, 3)
        self.norm = nn.LayerNorm([6, 4, 4])
        self.gate = nn.Linear(6, 1)
        self.place = nn.Parameter(torch.zeros(5, 6))
        self.body = nn.Sequential(nn.Linear(6, 6), nn.Linear(6, 6))
        self.body[1].requires_grad_(False)
        self.tied = nn.Linear(6, 10, bias=False)
        self.tied.weight = self.table.weight
        self.head = nn.Linear(6, 2)


def reasons(model: nn.Module, **options) -> dict[str, tuple[str, str]]:
    split = split_parameters(model, **options)
    return {each.name: (each.algorithm, each.reason) for each in split.assignments}


def test_every_kind_of_parameter_has_its_reason():
    found = reasons(Odd(), first=['stem'])
    assert found == {
        'table.weight': ('adamw', 'embedding'),
        'stem.weight': ('adamw', 'first layer'), 'stem.bias': ('adamw', 'bias or scale'),
        'deep.weight': ('adamw', 'depthwise kernel'), 'deep.bias': ('adamw', 'bias or scale'),
        'grouped.weight': ('adamw', 'grouped kernel: a matrix for each group'),
        'grouped.bias': ('adamw', 'bias or scale'),
        'hidden.weight': ('muon', 'matrix 6x72'), 'hidden.bias': ('adamw', 'bias or scale'),
        'norm.weight': ('adamw', 'norm'), 'norm.bias': ('adamw', 'norm'),
        'gate.weight': ('adamw', 'single row or column'), 'gate.bias': ('adamw', 'bias or scale'),
        'place': ('muon', 'matrix 5x6'),
        'body.0.weight': ('muon', 'matrix 6x6'), 'body.0.bias': ('adamw', 'bias or scale'),
        'body.1.weight': ('frozen', 'requires no gradient'),
        'body.1.bias': ('frozen', 'requires no gradient'),
        'head.weight': ('adamw', 'last layer'), 'head.bias': ('adamw', 'bias or scale'),
    }


def test_a_tied_weight_is_not_orthogonalised_whichever_use_comes_first():
    model = nn.Module()
    model.first, model.out = nn.Linear(4, 4), nn.Linear(6, 10, bias=False)
    model.table, model.last = nn.Embedding(10, 6), nn.Linear(4, 4)
    model.table.weight = model.out.weight
    assert reasons(model)['out.weight'] == ('adamw', 'embedding')


def test_the_ends_of_the_style_student_are_found():
    found = reasons(StyleStudent(StyleConfig()))
    assert found['stem.weight'] == ('adamw', 'first layer')
    assert found['last.conv.weight'] == ('adamw', 'last layer')
    assert found['blocks.2.inner.weight'] == ('muon', 'matrix 48x432')


def test_several_last_layers_can_be_named_as_one_module():
    split = split_parameters(DetectorNet(3), last=['box', 'label'])
    found = {each.name: each.reason for each in split.assignments}
    assert {found[f'{part}.{level}.weight'] for part in ('box', 'label') for level in range(3)} \
        == {'last layer'}
    assert found['stage8.0.0.weight'] == 'first layer'
    assert found['box_tower.0.weight'] == 'matrix 64x576'    # not of the module `box`


def test_groups_train_all_but_what_is_frozen_and_decay_no_biases():
    model = Odd()
    groups = split_parameters(model).groups(muon={'weight_decay': 0.1}, adamw={'lr': 1e-4})
    optimizer = Muon(groups, lr=1e-3, weight_decay=0.05)
    decay = {name: group['weight_decay'] for group in optimizer.param_groups
             for name in group['param_names']}
    assert set(decay) == {name for name, each in model.named_parameters() if each.requires_grad}
    assert decay['body.0.weight'] == 0.1
    assert decay['table.weight'] == 0.05
    assert decay['head.bias'] == decay['norm.weight'] == 0.0
    assert {group['lr'] for group in optimizer.param_groups} == {1e-3, 1e-4}


def test_it_prints_as_a_table_with_totals():
    lines = str(split_parameters(nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 4),
                                               nn.Linear(4, 2)))).splitlines()
    assert lines[0].split() == ['0.weight', '[4,', '3]', 'adamw', 'first', 'layer']
    assert lines[2].split() == ['1.weight', '[4,', '4]', 'muon', 'matrix', '4x4']
    assert 'muon: 1 tensors, 16 values (34.8 %)' in lines
    assert 'adamw: 5 tensors, 30 values (65.2 %)' in lines


def test_unknown_modules_and_nothing_to_train_are_errors():
    with pytest.raises(ValueError, match="last layer: the model has no module 'heads'.*0, 1"):
        split_parameters(nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2)), last=['heads'])
    with pytest.raises(ValueError, match='all are frozen'):
        split_parameters(nn.Linear(2, 2).requires_grad_(False)).groups()
