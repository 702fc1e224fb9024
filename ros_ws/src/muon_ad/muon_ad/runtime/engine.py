"""One network in ONNX Runtime, with buffers bound once and the provider in use reported."""

import copy
import logging
from dataclasses import dataclass
from dataclasses import field
from pathlib import Path

import numpy as np
import onnxruntime as ort

from muon_ad.runtime.engine_cache import engine_folder
from muon_ad.runtime.engine_cache import EngineIdentity
from muon_ad.runtime.engine_cache import this_machine
from muon_ad.runtime.memory import exceeds_limit
from muon_ad.runtime.memory import take_arena
from muon_ad.runtime.package import sha256_of

logger = logging.getLogger(__name__)

PROVIDERS = {
    'tensorrt': 'TensorrtExecutionProvider',
    'cuda': 'CUDAExecutionProvider',
    'cpu': 'CPUExecutionProvider',
}
_DTYPES = {
    'tensor(uint8)': np.uint8,
    'tensor(float)': np.float32,
    'tensor(float16)': np.float16,
    'tensor(int64)': np.int64,
}


class EngineError(RuntimeError):
    """A network cannot be loaded or run as asked."""


@dataclass(frozen=True)
class EngineOptions:
    """What an engine asks of ONNX Runtime.

    `providers` in order of preference, from tensorrt, cuda and cpu; those not present are skipped
    and reported. `threads` is the number of threads inside an operator. `memory_limit_mb` (0:
    none) bounds working memory: the arena of the CPU, which is then taken as a whole at once, that
    of CUDA, and TensorRT's workspace. `dla_core` -1 leaves the DLA alone. `cache_dir` keeps
    TensorRT's engines and timings, each in a folder of its own (engine_cache). `size` is width and
    height of the frames, for a model that leaves them open.
    """

    providers: tuple[str, ...] = ('cpu',)
    threads: int = 1
    memory_limit_mb: int = 0
    precision: str = 'fp32'
    dla_core: int = -1
    cache_dir: Path = Path('~/.cache/muon_ad/tensorrt')
    size: tuple[int, int] = (0, 0)


@dataclass
class Engine:
    """A loaded network. `run` is not re-entrant: its outputs are buffers that it owns.

    `provider` is what really runs the network; `notes` says what was asked for and not to be had.
    """

    path: Path
    options: EngineOptions = field(default_factory=EngineOptions)

    def __post_init__(self) -> None:
        self.notes: list[str] = []
        self._session = self._load()
        self.provider = _short_name(self._session.get_providers()[0])
        self.inputs = {node.name: node for node in self._session.get_inputs()}
        self.outputs = [node.name for node in self._session.get_outputs()]
        self._unbind()

    def twin(self) -> 'Engine':
        """Return an engine on the same loaded network with buffers of its own.

        Each keeps its input size, so that neither binds anew where frames of two sizes take turns;
        weights and working memory are there once.
        """
        other = copy.copy(self)
        other._unbind()
        return other

    def _unbind(self) -> None:
        self._binding = self._session.io_binding()
        self._bound: dict[str, tuple[int, tuple[int, ...]]] = {}
        self._results: list[np.ndarray] = []

    def _load(self) -> ort.InferenceSession:
        if not self.path.is_file():
            raise EngineError(f'{self.path}: no such model file')
        ort.disable_telemetry_events()  # a robot reports to nobody
        try:
            session = ort.InferenceSession(
                str(self.path), self.settings(), providers=self._providers()
            )
        except Exception as error:  # noqa: BLE001 - ORT raises bare RuntimeError subclasses
            self.check_limit(error)
            raise EngineError(f'{self.path}: ONNX Runtime cannot load it: {error}') from error
        asked, got = self.options.providers[0], _short_name(session.get_providers()[0])
        if got.lower() != asked and not self.notes:
            self.notes.append(f'{asked} was asked for, {got} runs the model')
        for note in self.notes:
            logger.warning('%s: %s', self.path.name, note)
        return session

    def settings(self) -> ort.SessionOptions:
        """Return the options of a session as this engine's; with a limit, in a new arena."""
        settings = ort.SessionOptions()
        settings.intra_op_num_threads = self.options.threads
        settings.inter_op_num_threads = 1
        # Spinning worker threads steal the core from the other tasks between two frames.
        settings.add_session_config_entry('session.intra_op.allow_spinning', '0')
        if self.options.memory_limit_mb:
            take_arena(settings, self.options.memory_limit_mb)
        return settings

    def check_limit(self, error: Exception) -> None:
        """Say it plainly where a limit that was asked for is why ONNX Runtime failed."""
        if self.options.memory_limit_mb and exceeds_limit(error):
            raise EngineError(
                f'{self.path.name}: memory_limit_mb is {self.options.memory_limit_mb}, and the '
                'network needs more for such frames; expected a larger limit, 0 for none, or a '
                'smaller variant'
            ) from error

    def input_shape(self, name: str) -> tuple[int, ...]:
        """Return the shape of an input as it was last, or as the network fixes it.

        Raises EngineError where it is open and nothing ran yet.
        """
        if name in self._bound:
            return self._bound[name][1]
        shape = self.inputs[name].shape
        if all(isinstance(each, int) for each in shape):
            return tuple(shape)
        raise EngineError(
            f'{self.path.name}: input {name} has the open shape {shape}; run it once'
        )

    def _providers(self) -> list[str | tuple[str, dict]]:
        available = ort.get_available_providers()
        chosen: list[str | tuple[str, dict]] = []
        for name in self.options.providers:
            if name not in PROVIDERS:
                raise EngineError(f'provider {name!r} is not known; use {sorted(PROVIDERS)}')
            if PROVIDERS[name] in available:
                chosen.append((PROVIDERS[name], self._provider_options(name)))
            else:
                self.notes.append(
                    f'{name} was asked for, but this ONNX Runtime has only '
                    f'{[_short_name(p) for p in available]}'
                )
        if not chosen:
            raise EngineError(f'{self.path}: none of {self.options.providers} is available')
        return chosen

    def _provider_options(self, name: str) -> dict[str, str]:
        limit = self.options.memory_limit_mb << 20
        if name == 'cuda':
            grow = {'gpu_mem_limit': str(limit), 'arena_extend_strategy': 'kSameAsRequested'}
            return grow if limit else {}
        if name != 'tensorrt':
            return {}
        options = tensorrt_options(self.options)
        identity = EngineIdentity(sha256_of(self.path), options, self.options.size, this_machine())
        folder = str(engine_folder(self.options.cache_dir, identity))
        return {**options, 'trt_engine_cache_path': folder, 'trt_timing_cache_path': folder}

    def run(self, feeds: dict[str, np.ndarray]) -> list[np.ndarray]:
        """Run the network and return its outputs, in the order of `outputs`.

        The arrays returned are overwritten by the next call; copy what must live longer. Raises
        EngineError for a missing or extra input, a dtype or shape the network does not take, or a
        failure inside ONNX Runtime.
        """
        if feeds.keys() != self.inputs.keys():
            raise EngineError(f'{self.path.name} takes {list(self.inputs)}, got {list(feeds)}')
        changed = [name for name, value in feeds.items() if self._bind_input(name, value)]
        try:
            if changed or not self._results:
                self._rebind_outputs(feeds)
            else:
                self._session.run_with_iobinding(self._binding)
        except EngineError:
            raise
        except Exception as error:  # noqa: BLE001 - ORT raises bare RuntimeError subclasses
            self._results = []
            self.check_limit(error)
            raise EngineError(f'{self.path.name}: inference failed: {error}') from error
        return self._results

    def _bind_input(self, name: str, value: np.ndarray) -> bool:
        """Bind `value`; return whether its shape differs from the one bound before."""
        node = self.inputs[name]
        if _DTYPES.get(node.type) != value.dtype:
            raise EngineError(f'{self.path.name}: input {name} is {node.type}, got {value.dtype}')
        fits = len(node.shape) == value.ndim and all(
            not isinstance(want, int) or want == have
            for want, have in zip(node.shape, value.shape, strict=True)
        )
        if not fits:
            raise EngineError(
                f'{self.path.name}: input {name} has shape {node.shape}, got {value.shape}'
            )
        # A copy where rows are padded. The binding keeps it alive, so that its address is its own.
        value = np.ascontiguousarray(value)
        key = (value.__array_interface__['data'][0], value.shape)
        before = self._bound.get(name)
        if key != before:
            self._binding.bind_cpu_input(name, value)
            self._bound[name] = key
        return before is None or before[1] != value.shape

    def _rebind_outputs(self, feeds: dict[str, np.ndarray]) -> None:
        """Learn the output shapes for these inputs, then bind buffers that later calls reuse."""
        first = self._session.run(self.outputs, feeds)
        self._results = [np.ascontiguousarray(value) for value in first]
        self._binding.clear_binding_outputs()
        for name, buffer in zip(self.outputs, self._results, strict=True):
            self._binding.bind_output(
                name, 'cpu', 0, buffer.dtype, buffer.shape, buffer.ctypes.data
            )


def tensorrt_options(options: EngineOptions) -> dict[str, str]:
    """Return the options of ONNX Runtime's TensorRT provider, without the paths of its caches."""
    chosen = {
        'trt_engine_cache_enable': '1',
        'trt_timing_cache_enable': '1',
        'trt_context_memory_sharing_enable': '1',
        'trt_fp16_enable': str(int(options.precision in ('fp16', 'int8'))),
        'trt_int8_enable': str(int(options.precision == 'int8')),
    }
    if options.memory_limit_mb:
        chosen['trt_max_workspace_size'] = str(options.memory_limit_mb << 20)
    if options.dla_core >= 0:
        chosen |= {'trt_dla_enable': '1', 'trt_dla_core': str(options.dla_core)}
    return chosen


def _short_name(provider: str) -> str:
    return {'TensorrtExecutionProvider': 'TensorRT'}.get(
        provider, provider.removesuffix('ExecutionProvider')
    )
