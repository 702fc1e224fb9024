"""Node parameters: declared once with description, range and default; checked in one place."""

from collections.abc import Iterable
from dataclasses import dataclass
from types import SimpleNamespace

from rcl_interfaces.msg import FloatingPointRange
from rcl_interfaces.msg import IntegerRange
from rcl_interfaces.msg import ParameterDescriptor
from rcl_interfaces.msg import SetParametersResult
from rclpy.exceptions import InvalidParameterValueException
from rclpy.node import Node
from rclpy.parameter import Parameter as RclpyParameter

Scalar = bool | int | float | str
Value = Scalar | list[int] | list[float] | list[str]

# An empty list has no element type of its own in ROS, so lists carry it here.
_LIST_KINDS = {'integers': int, 'numbers': float, 'strings': str}


class ParameterError(ValueError):
    """A parameter has a value that its declaration does not allow."""


@dataclass(frozen=True)
class Parameter:
    """Declaration of one parameter.

    `range` is inclusive, for numbers and for each of a list; `choices` for strings; `kind` names
    the element type of a list (integers, numbers, strings). A `dynamic` parameter takes effect at
    once when it is set; the others are read when the node is configured and refuse to change
    until it is cleaned up.
    """

    name: str
    default: Value
    description: str
    range: tuple[float, float] | None = None
    choices: tuple[str, ...] = ()
    kind: str = ''
    dynamic: bool = False

    @property
    def attribute(self) -> str:
        """Name under which `read` offers the value."""
        return self.name.replace('.', '_')

    @property
    def type_name(self) -> str:
        """Type as written in the documentation."""
        if isinstance(self.default, list):
            return f'list of {self.kind}'
        return {bool: 'bool', int: 'integer', float: 'number', str: 'string'}[type(self.default)]

    @property
    def expected(self) -> str:
        """What the parameter accepts, in words."""
        if self.choices:
            return 'one of ' + ', '.join(repr(choice) for choice in self.choices)
        if self.range:
            return f'{self.type_name} from {self.range[0]:g} to {self.range[1]:g}'
        return self.type_name

    def check(self, value: Value) -> Value:
        """Return `value` in the declared type.

        An integer is accepted where a number is declared, as people write `30` for `30.0`. Raises
        ParameterError for another type, or a value outside range or choices.
        """
        if isinstance(self.default, list):
            element = _LIST_KINDS[self.kind]
            items = list(value) if not isinstance(value, Scalar) and value is not None else None
            if items is None or not all(_is(item, element) for item in items):
                raise self._error(value)
            if self.range and not all(self.range[0] <= each <= self.range[1] for each in items):
                raise self._error(value)
            return [element(item) for item in items]
        if not _is(value, type(self.default)):
            raise self._error(value)
        value = type(self.default)(value)
        if self.choices and value not in self.choices:
            raise self._error(value)
        if self.range and not self.range[0] <= value <= self.range[1]:
            raise self._error(value)
        return value

    def _error(self, value: Value) -> ParameterError:
        return ParameterError(f'parameter {self.name} is {value!r}; expected {self.expected}')

    def descriptor(self) -> ParameterDescriptor:
        """Describe the parameter for `ros2 param describe`."""
        descriptor = ParameterDescriptor(
            description=self.description,
            additional_constraints=self.expected if self.choices else '',
            # Typed by `check`, so that 30 may stand for 30.0 and [] for any list.
            dynamic_typing=True,
        )
        if isinstance(self.default, list):
            return descriptor   # ROS has ranges for single numbers only
        if self.range and isinstance(self.default, float):
            low, high = (float(limit) for limit in self.range)
            descriptor.floating_point_range = [FloatingPointRange(from_value=low, to_value=high)]
        elif self.range:
            low, high = (int(limit) for limit in self.range)
            descriptor.integer_range = [IntegerRange(from_value=low, to_value=high)]
        return descriptor


def _is(value: object, kind: type) -> bool:
    if kind is float:
        return isinstance(value, int | float) and not isinstance(value, bool)
    if kind is int:
        return isinstance(value, int) and not isinstance(value, bool)
    return isinstance(value, kind)


def declare(node: Node, parameters: Iterable[Parameter]) -> dict[str, str]:
    """Declare `parameters` on `node` and return what is wrong with their overrides, by name.

    A bad override does not end the process: the default is declared in its place, and the caller
    refuses to configure until the parameter is set to a value that is accepted.
    """
    errors = {}
    for parameter in parameters:
        try:
            declared = node.declare_parameter(
                parameter.name, parameter.default, parameter.descriptor()
            )
            parameter.check(declared.value)
        except (InvalidParameterValueException, ParameterError) as error:
            override = node._parameter_overrides.get(parameter.name)
            shown = getattr(override, 'value', None)
            errors[parameter.name] = (
                str(error)
                if isinstance(error, ParameterError)
                else str(parameter._error(shown))
            )
            if not node.has_parameter(parameter.name):
                node.declare_parameter(
                    parameter.name,
                    parameter.default,
                    parameter.descriptor(),
                    ignore_override=True,
                )
    return errors


def read(node: Node, parameters: Iterable[Parameter]) -> SimpleNamespace:
    """Return the current values of `parameters`, dots in their names turned into underscores.

    Raises ParameterError for the first value that is not accepted.
    """
    return SimpleNamespace(
        **{p.attribute: p.check(node.get_parameter(p.name).value) for p in parameters}
    )


def validate(
    changes: Iterable[RclpyParameter], parameters: Iterable[Parameter], configured: bool
) -> SetParametersResult:
    """Judge a request to set parameters, without applying it."""
    known = {parameter.name: parameter for parameter in parameters}
    for change in changes:
        parameter = known.get(change.name)
        if parameter is None:
            continue
        try:
            parameter.check(change.value)
        except ParameterError as error:
            return SetParametersResult(successful=False, reason=str(error))
        if configured and not parameter.dynamic:
            return SetParametersResult(
                successful=False,
                reason=f'parameter {change.name} is read when the node is configured; '
                'deactivate and clean up the node first',
            )
    return SetParametersResult(successful=True)
