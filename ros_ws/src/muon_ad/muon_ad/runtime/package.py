"""Model packages: a folder with `model.yaml`, ONNX files, and what is needed to trust them.

Loading checks everything that can be checked without running the network, so that a broken
package is an error when a node is configured and not a surprise in the middle of a stream.
"""

import hashlib
import math
from dataclasses import dataclass
from dataclasses import field
from dataclasses import fields
from pathlib import Path
from typing import Any

from muon_ad.documents import DocumentError
from muon_ad.documents import quoted
from muon_ad.documents import read_document
from muon_ad.paths import expanded
from muon_ad.paths import is_file

TASKS = ('style', 'detection')


class PackageError(ValueError):
    """A model package cannot be used; the message names the file, what it holds and what to do."""


@dataclass(frozen=True)
class InputSpec:
    """How a frame is prepared for the network.

    `color` is the channel order; `layout` nhwc or nchw; `dtype` uint8 (the network normalises by
    itself) or float32 (then `(pixel - mean) / std` in units of 0..255, per channel in `color`
    order). `resize` is stretch, letterbox (aspect kept, filled at the right and bottom with
    `pad_value`) or fit (aspect kept, the input is as small as that needs; style packages only).
    """

    color: str = 'rgb'
    layout: str = 'nhwc'
    dtype: str = 'uint8'
    resize: str = 'stretch'
    mean: tuple[float, float, float] = (0.0, 0.0, 0.0)
    std: tuple[float, float, float] = (1.0, 1.0, 1.0)
    pad_value: int = 114

    CHOICES = {
        'color': ('rgb', 'bgr'),
        'layout': ('nhwc', 'nchw'),
        'dtype': ('uint8', 'float32'),
        'resize': ('stretch', 'letterbox', 'fit'),
    }


@dataclass(frozen=True)
class Variant:
    """One level of detail: an ONNX file at one input size."""

    name: str
    file: Path
    sha256: str
    width: int
    height: int
    precision: str = 'fp32'
    pruned: float = 0.0
    parameters: int = 0
    gflops: float = 0.0


@dataclass(frozen=True)
class ModelPackage:
    """A checked model package. Paths are absolute; `variants` is ordered as in the file."""

    name: str
    task: str
    folder: Path
    summary: str
    licence: str
    input: InputSpec
    variants: dict[str, Variant]
    default_variant: str
    decoder: dict[str, Any] = field(default_factory=dict)
    classes: tuple[str, ...] = ()
    style_encoder: Path | None = None
    styles: dict[str, Path] = field(default_factory=dict)
    default_style: str = ''
    quality: dict[str, Any] = field(default_factory=dict)

    def variant(self, name: str = '') -> Variant:
        """Return the named variant, or the default for an empty name.

        Raises PackageError where there is none of that name.
        """
        wanted = name or self.default_variant
        if wanted not in self.variants:
            raise PackageError(
                f'{self.folder}: no variant {wanted!r}; this package has {sorted(self.variants)}'
            )
        return self.variants[wanted]


def sha256_of(path: Path) -> str:
    """Return the hexadecimal SHA-256 of a file."""
    digest = hashlib.sha256()
    with path.open('rb') as stream:
        while block := stream.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def load_package(folder: str | Path) -> ModelPackage:
    """Read and check the model package in `folder`.

    Raises PackageError where the folder, `model.yaml` or a file is missing, a hash does not match,
    or a field is absent or has a value that is not among those accepted.
    """
    folder = expanded(folder).absolute()
    path = folder / 'model.yaml'
    if not is_file(path):
        raise PackageError(f'{path}: no such file; expected the folder of a model package')
    try:
        data = read_document(path)
    except DocumentError as error:
        raise PackageError(f'{path}: {error}') from error
    return _Reader(path).package(data)


@dataclass(frozen=True)
class _Reader:
    """Turns the parsed `model.yaml` at `path` into a ModelPackage."""

    path: Path

    def package(self, data: Any) -> ModelPackage:  # noqa: ANN401 - whatever YAML held
        self._expect(data, dict, 'the file')
        task = self._take(data, 'task', str)
        if task not in TASKS:
            raise self._error('task', task, f'one of {TASKS}')
        variants = {
            str(name): self._variant(str(name), entry)
            for name, entry in self._take(data, 'variants', dict).items()
        }
        if not variants:
            raise self._error('variants', variants, 'at least one variant')
        default = self._take(data, 'default_variant', str, next(iter(variants)))
        if default not in variants:
            raise self._error('default_variant', default, f'one of {sorted(variants)}')
        style = self._take(data, 'style', dict, {})
        if task == 'style' and not style:
            raise self._error('style', style, 'a mapping with encoder, images and default')
        styles = self._styles(style) if style else {}
        default_style = self._take(style, 'default', str, next(iter(styles), ''))
        if style and default_style not in styles:
            raise self._error('style.default', default_style, f'one of {sorted(styles)}')
        prepared = self._input(self._take(data, 'input', dict, {}))
        if prepared.resize == ('letterbox' if task == 'style' else 'fit'):
            raise self._error('input.resize', prepared.resize, f'one that suits task {task}')
        decoder = self._take(data, 'decoder', dict, {})
        classes = tuple(str(name) for name in self._take(data, 'classes', list, []))
        if task == 'detection' and not (decoder.get('name') and classes):
            raise self._error('decoder', decoder, 'decoder.name and a list of classes')
        return ModelPackage(
            name=self._take(data, 'name', str),
            task=task,
            folder=self.path.parent,
            summary=self._take(data, 'summary', str, ''),
            licence=self._take(data, 'licence', str, ''),
            input=prepared,
            variants=variants,
            default_variant=default,
            decoder=decoder,
            classes=classes,
            style_encoder=self._file(style['encoder'], 'style.encoder') if style else None,
            styles=styles,
            default_style=default_style,
            quality=self._take(data, 'quality', dict, {}),
        )

    def _styles(self, style: dict) -> dict[str, Path]:
        self._take(style, 'encoder', dict)
        images = self._take(style, 'images', dict)
        return {str(name): self._file(entry, f'style.images.{name}')
                for name, entry in images.items()}

    def _input(self, data: dict) -> InputSpec:
        known = {field.name for field in fields(InputSpec)}
        if set(data) - known:
            unknown = sorted(map(str, set(data) - known))
            raise self._error('input', unknown, f'some of {sorted(known)}')
        for key, choices in InputSpec.CHOICES.items():
            if data.get(key, choices[0]) not in choices:
                raise self._error(f'input.{key}', data[key], f'one of {choices}')
        values = dict(data)
        for key in ('mean', 'std'):
            if key in values:
                numbers = self._take(values, key, list)
                values[key] = tuple(self._number(v, f'input.{key}') for v in numbers)
                if len(values[key]) != 3 or (key == 'std' and not all(values[key])):
                    expected = 'three numbers' + ', none of them zero' * (key == 'std')
                    raise self._error(f'input.{key}', numbers, expected)
        padding = self._take(values, 'pad_value', int, InputSpec.pad_value)
        if not 0 <= padding <= 255:
            raise self._error('input.pad_value', padding, '0 to 255')
        return InputSpec(**values)

    def _variant(self, name: str, entry: Any) -> Variant:  # noqa: ANN401
        where = f'variants.{name}'
        self._expect(entry, dict, where)
        size = {key: self._take(entry, key, int) for key in ('width', 'height')}
        for key, value in size.items():
            if not 16 <= value <= 8192:
                raise self._error(f'{where}.{key}', value, '16 to 8192 pixels')
        return Variant(
            name=name,
            file=self._file(entry, where),
            sha256=str(entry['sha256']),
            precision=self._take(entry, 'precision', str, 'fp32'),
            pruned=self._number(entry.get('pruned', 0.0), f'{where}.pruned'),
            parameters=self._take(entry, 'parameters', int, 0),
            gflops=self._number(entry.get('gflops', 0.0), f'{where}.gflops'),
            **size,
        )

    def _file(self, entry: Any, where: str) -> Path:  # noqa: ANN401
        """Check a `{file, sha256}` mapping and return the absolute path of the file."""
        self._expect(entry, dict, where)
        name = Path(self._take(entry, 'file', str))
        # Not resolved first: an installed package may consist of links to its files.
        if name.is_absolute() or '..' in name.parts:
            raise self._error(f'{where}.file', entry['file'], 'a path inside the package')
        path = self.path.parent / name
        if not is_file(path):
            raise PackageError(f'{path}: no such file, though {self.path} names it in {where}')
        expected = self._take(entry, 'sha256', str)
        try:
            found = sha256_of(path)
        except OSError as error:
            raise PackageError(f'{path}: cannot be read: {error}') from error
        if found != expected:
            raise PackageError(
                f'{path}: sha256 is {found}, {self.path} expects {expected}; '
                'the file was changed or is incomplete'
            )
        return path

    def _number(self, value: Any, where: str) -> float:  # noqa: ANN401
        """Check a finite number and return it."""
        good = isinstance(value, int | float) and not isinstance(value, bool)
        if not good or not abs(value) < math.inf:
            raise self._error(where, value, 'a finite number')
        try:
            return float(value)
        except OverflowError as error:
            raise self._error(where, value, 'a finite number') from error

    def _take(self, data: dict, key: str, kind: type, default: Any = None) -> Any:  # noqa: ANN401
        if key not in data and default is not None:
            return default
        if key not in data:
            raise PackageError(f'{self.path}: {key} is missing; expected a {kind.__name__}')
        self._expect(data[key], kind, key)
        return data[key]

    def _expect(self, value: Any, kind: type, where: str) -> None:  # noqa: ANN401
        if not isinstance(value, kind):
            raise self._error(where, value, f'a {kind.__name__}')

    def _error(self, where: str, value: Any, expected: str) -> PackageError:  # noqa: ANN401
        return PackageError(f'{self.path}: {where} is {quoted(value)}; expected {expected}')
