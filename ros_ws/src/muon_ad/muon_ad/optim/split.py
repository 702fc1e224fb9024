"""Which parameters of a model Muon orthogonalises, which it leaves to AdamW, and why."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from torch import nn
from torch.nn.modules.batchnorm import _NormBase as BatchOrInstanceNorm
from torch.nn.modules.conv import _ConvNd as Convolution

NORMS = (nn.LayerNorm, nn.GroupNorm, nn.RMSNorm, nn.LocalResponseNorm, BatchOrInstanceNorm)
EMBEDDINGS = (nn.Embedding, nn.EmbeddingBag)
FROZEN = 'frozen'
NORM = 'norm'
VECTOR = 'bias or scale'


@dataclass(frozen=True)
class Assignment:
    """A parameter of a model, what updates it ('muon', 'adamw' or 'frozen'), and the reason."""

    name: str
    parameter: nn.Parameter
    algorithm: str
    reason: str


@dataclass(frozen=True)
class ParameterSplit:
    """What updates each parameter of a model. Printed, it is a table."""

    assignments: tuple[Assignment, ...]

    def groups(self, muon: dict | None = None, adamw: dict | None = None) -> list[dict]:
        """Return parameter groups for `Muon`, with names, and with these settings for each part.

        Biases, scales and norms are not decayed, as they have no reason to shrink. Raises
        ValueError where every parameter is frozen.
        """
        matrices, others, undecayed = [], [], []
        for each in self.assignments:
            if each.algorithm == 'muon':
                matrices.append((each.name, each.parameter))
            elif each.algorithm == 'adamw':
                part = undecayed if each.reason in (VECTOR, NORM) else others
                part.append((each.name, each.parameter))
        parts = (
            {'params': matrices, 'algorithm': 'muon', **(muon or {})},
            {'params': others, 'algorithm': 'adamw', **(adamw or {})},
            {'params': undecayed, 'algorithm': 'adamw', **(adamw or {}), 'weight_decay': 0.0},
        )
        made = [part for part in parts if part['params']]
        if not made:
            raise ValueError('no parameter to train: all are frozen (requires_grad is False)')
        return made

    def __str__(self) -> str:
        """Return a table of name, shape, algorithm and reason, and the totals below."""
        rows = [(each.name, str(list(each.parameter.shape)), each.algorithm, each.reason)
                for each in self.assignments]
        widths = [max((len(row[column]) for row in rows), default=0) for column in range(3)]
        lines = [f'{row[0]:{widths[0]}}  {row[1]:{widths[1]}}  {row[2]:{widths[2]}}  {row[3]}'
                 for row in rows]
        sizes, tensors = Counter(), Counter()
        for each in self.assignments:
            sizes[each.algorithm] += each.parameter.numel()
            tensors[each.algorithm] += 1
        total = max(1, sizes.total())
        lines += [f'{name}: {tensors[name]} tensors, {sizes[name]} values '
                  f'({100 * sizes[name] / total:.1f} %)' for name in sizes]
        return '\n'.join(lines)


def split_parameters(
    model: nn.Module, first: Sequence[str] | None = None, last: Sequence[str] | None = None
) -> ParameterSplit:
    """Divide the parameters of a model between Muon and AdamW.

    AdamW has what is not a matrix between two hidden layers (Jordan et al., 2024): biases,
    scales, norms, embeddings, depthwise and other grouped kernels, single rows and columns, and
    the first and the last layer. `first` and `last` name modules, with all that is in them;
    without, they are the first and the last layer with a weight, in the order in which the model
    registers them, which need not be that of its forward pass: print the result. A tied parameter
    is AdamW's where one of its uses is. Raises ValueError for the name of no module.
    """
    layers = [name for name, module in model.named_modules()
              if (weight := module._parameters.get('weight')) is not None and weight.ndim >= 2
              and not isinstance(module, NORMS)]
    ends = {'first layer': layers[:1] if first is None else first,
            'last layer': layers[-1:] if last is None else last}
    _check_names(model, ends)
    reasons: dict[int, str] = {}        # by id: why a parameter is not for Muon
    for prefix, module in model.named_modules():
        for parameter in module._parameters.values():
            if parameter is not None and id(parameter) not in reasons:
                reason = _unfit(parameter, module) or _place(prefix, ends)
                if reason:
                    reasons[id(parameter)] = reason
    return ParameterSplit(tuple(
        _assignment(name, parameter, reasons.get(id(parameter)))
        for name, parameter in model.named_parameters()
    ))


def _assignment(name: str, parameter: nn.Parameter, reason: str | None) -> Assignment:
    if not parameter.requires_grad:
        return Assignment(name, parameter, FROZEN, 'requires no gradient')
    if reason:
        return Assignment(name, parameter, 'adamw', reason)
    rows = parameter.shape[0]
    return Assignment(name, parameter, 'muon', f'matrix {rows}x{parameter.numel() // rows}')


def _unfit(parameter: nn.Parameter, module: nn.Module) -> str | None:
    """Return why the parameter is no matrix to orthogonalise, or None."""
    if isinstance(module, EMBEDDINGS):
        return 'embedding'
    if isinstance(module, NORMS):
        return NORM
    if parameter.ndim < 2:
        return VECTOR
    if isinstance(module, Convolution) and module.groups > 1:
        depthwise = module.groups == module.in_channels
        return 'depthwise kernel' if depthwise else 'grouped kernel: a matrix for each group'
    if parameter.shape[0] == 1 or parameter.numel() == parameter.shape[0]:
        return 'single row or column'
    return None


def _place(name: str, ends: dict[str, Sequence[str]]) -> str | None:
    """Return whether the module is in the first or the last layer."""
    for reason, modules in ends.items():
        if any(name == module or name.startswith(f'{module}.') for module in modules):
            return reason
    return None


def _check_names(model: nn.Module, ends: dict[str, Sequence[str]]) -> None:
    known = [name for name, _ in model.named_modules()]
    for place, modules in ends.items():
        for name in modules:
            if name not in known:
                raise ValueError(f'{place}: the model has no module {name!r}; expected one of '
                                 f'{", ".join(filter(None, known))}')
