"""Where a TensorRT engine is kept: a folder named by everything that the engine depends on.

ONNX Runtime names its engine files by the graph's inputs and nodes, not by its weights, and does
not see a change of driver or GPU. An engine is valid for one model, one set of build options and
one machine, so each such combination gets a folder of its own: a stale engine is never found.
"""

import ctypes
import functools
import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict
from dataclasses import dataclass
from pathlib import Path

import onnxruntime as ort

UNKNOWN = 'unknown'
KEY_LENGTH = 32     # hexadecimal digits: 128 bits
# Options that say where something is kept, and not how an engine is built.
_PLACES = ('trt_engine_cache_path', 'trt_timing_cache_path')
_DRIVER_FILES = (Path('/proc/driver/nvidia/version'), Path('/etc/nv_tegra_release'))
_COMPUTE_CAPABILITY_MAJOR, _COMPUTE_CAPABILITY_MINOR = 75, 76  # CUdevice_attribute


@dataclass(frozen=True)
class Machine:
    """What of a machine an engine depends on; what cannot be read is 'unknown'."""

    onnxruntime: str
    tensorrt: str = UNKNOWN
    gpu: str = UNKNOWN
    compute_capability: str = UNKNOWN
    driver: str = UNKNOWN


@dataclass(frozen=True)
class EngineIdentity:
    """Everything that an engine depends on.

    `options` are the options of ONNX Runtime's TensorRT provider, which hold precision, DLA core,
    workspace and flags; their order, and the paths among them, mean nothing. `size` is width and
    height of the frames, for a model that leaves them open: TensorRT builds for one.
    """

    model_sha256: str
    options: Mapping[str, str]
    size: tuple[int, int]
    machine: Machine

    def described(self) -> dict[str, object]:
        """Return the ingredients, as they are hashed and as they are kept beside the engine."""
        options = {name: str(value) for name, value in sorted(self.options.items())
                   if name not in _PLACES}
        return {'model_sha256': self.model_sha256, 'options': options, 'size': list(self.size),
                **asdict(self.machine)}

    def key(self) -> str:
        """Return the name of the engine's folder: hexadecimal, 32 digits."""
        text = json.dumps(self.described(), sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:KEY_LENGTH]


def engine_folder(cache: Path, identity: EngineIdentity) -> Path:
    """Make and return the engine's folder in `cache`, with key.json that says what it is for.

    Raises OSError where it cannot be made.
    """
    folder = cache.expanduser() / identity.key()
    folder.mkdir(parents=True, exist_ok=True)
    text = json.dumps(identity.described(), indent=2) + '\n'
    (folder / 'key.json').write_text(text, encoding='utf-8')
    return folder


@functools.cache
def this_machine() -> Machine:
    """Read the machine's versions from its libraries; no GPU is needed for it to answer."""
    gpu, capability = _gpu()
    return Machine(ort.__version__, _tensorrt_version(), gpu, capability, _driver_version())


def _library(*names: str) -> ctypes.CDLL | None:
    for name in names:
        try:
            return ctypes.CDLL(name)
        except OSError:
            continue
    return None


def _tensorrt_version() -> str:
    """Ask libnvinfer, newest first: as the number it gives, such as 100300 for 10.3.0."""
    library = _library('libnvinfer.so.11', 'libnvinfer.so.10', 'libnvinfer.so.8', 'libnvinfer.so')
    return str(library.getInferLibVersion()) if library else UNKNOWN


def _gpu() -> tuple[str, str]:
    """Return the name of the first GPU and its compute capability, from the CUDA driver."""
    cuda = _library('libcuda.so.1')
    if cuda is None or cuda.cuInit(0) != 0:
        return UNKNOWN, UNKNOWN
    device, name = ctypes.c_int(), ctypes.create_string_buffer(256)
    if cuda.cuDeviceGet(ctypes.byref(device), 0) or cuda.cuDeviceGetName(name, 256, device):
        return UNKNOWN, UNKNOWN
    numbers = []
    for attribute in (_COMPUTE_CAPABILITY_MAJOR, _COMPUTE_CAPABILITY_MINOR):
        number = ctypes.c_int()
        if cuda.cuDeviceGetAttribute(ctypes.byref(number), attribute, device):
            return name.value.decode(errors='replace'), UNKNOWN
        numbers.append(str(number.value))
    return name.value.decode(errors='replace'), '.'.join(numbers)


def _driver_version() -> str:
    """Return what the kernel's driver, or the Jetson release, says of itself in its first line."""
    for path in _DRIVER_FILES:
        try:
            return path.read_text(encoding='utf-8', errors='replace').splitlines()[0].strip()
        except (OSError, IndexError):
            continue
    return UNKNOWN
