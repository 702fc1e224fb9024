"""Working memory of a network: an arena taken once, a hard limit for it, and a report of its use.

ONNX Runtime's arena takes memory from the system in regions and hands it out in chunks. By itself
it doubles what it takes each time; with a limit, one region of that size is taken with the first
allocation, so nothing grows afterwards and no two regions leave gaps between them.
"""

import json
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import onnxruntime as ort

if TYPE_CHECKING:
    from muon_ad.runtime.engine import Engine

# In the message of ONNX Runtime's arena at its limit.
_EXHAUSTED = 'Available memory of'
# arena_extend_strategy kNextPowerOfTwo: the other one heeds no initial size.
_BY_INITIAL_SIZE = 0
_DTYPES = {
    'tensor(uint8)': np.uint8, 'tensor(float)': np.float32, 'tensor(float16)': np.float16,
    'tensor(int64)': np.int64,
}


def take_arena(settings: ort.SessionOptions, limit_mb: int) -> None:
    """Let the session made with `settings` work on the CPU in an arena of its own of `limit_mb`.

    A session keeps the arena that was registered last when it was made; the registration is the
    process's, and ONNX Runtime knows no other way.
    """
    limit = limit_mb << 20
    ort.create_and_register_allocator(
        ort.OrtMemoryInfo('Cpu', ort.OrtAllocatorType.ORT_ARENA_ALLOCATOR, 0,
                          ort.OrtMemType.DEFAULT),
        ort.OrtArenaCfg({
            'max_mem': limit, 'initial_chunk_size_bytes': limit,
            'arena_extend_strategy': _BY_INITIAL_SIZE, 'max_dead_bytes_per_chunk': -1,
        }),
    )
    settings.add_session_config_entry('session.use_env_allocators', '1')


def exceeds_limit(error: Exception) -> bool:
    """Whether ONNX Runtime failed since an arena is at its limit."""
    return _EXHAUSTED in str(error)


def memory_report(engine: 'Engine') -> dict[str, float | int | None]:
    """Return what an engine's network needs, in bytes, for inputs of the size that it ran last.

    `arena_held` is what the arena took from the system, `arena_peak` the most of it in use, and
    `requested_peak` what was asked for then; `fragmentation` is 1 - requested_peak / arena_held,
    the share that is rounding, gaps and reserve. They come from a second session, run twice with
    ONNX Runtime's profiler, and are None where its version does not tell (before 1.31) or the
    network does not run on the CPU. `limit` is 0 for none; `buffers` are inputs and outputs, bound
    once; `weights` is the size of the file. `resident` and `resident_peak` are of the whole
    process. Raises EngineError for a network of open size that has not run yet, or whose limit
    is too small.
    """
    feeds = {name: np.zeros(engine.input_shape(name), _DTYPES[node.type])
             for name, node in engine.inputs.items()}
    outputs = sum(value.nbytes for value in engine.run(feeds))
    resident, peak = _resident()
    found = _arena(engine, feeds) if engine.provider == 'CPU' else {}
    held, asked = found.get('arena_held'), found.get('requested_peak')
    return {
        'limit': engine.options.memory_limit_mb << 20,
        'arena_held': held,
        'arena_peak': found.get('arena_peak'),
        'requested_peak': asked,
        'fragmentation': 1 - asked / held if held and asked is not None else None,
        'buffers': outputs + sum(value.nbytes for value in feeds.values()),
        'weights': engine.path.stat().st_size,
        'resident': resident,
        'resident_peak': peak,
    }


def _arena(engine: 'Engine', feeds: dict[str, np.ndarray]) -> dict[str, int]:
    """Return the arena's statistics, from the events of each operator in a profile."""
    with tempfile.TemporaryDirectory() as folder:
        settings = engine.settings()
        settings.enable_profiling = True
        settings.profile_file_prefix = str(Path(folder, 'profile'))
        session = ort.InferenceSession(
            str(engine.path), settings, providers=['CPUExecutionProvider']
        )
        try:
            for _ in range(2):      # the first run learns the pattern of the allocations
                session.run(None, feeds)
        except Exception as error:  # noqa: BLE001 - ORT raises bare RuntimeError subclasses
            engine.check_limit(error)
            raise
        events = json.loads(Path(session.end_profiling()).read_text(encoding='utf-8'))
    seen = [each['args'] for each in events
            if 'mem_arena_held' in each.get('args', {})]
    if not seen:
        return {}
    return {name: max(int(each[key]) for each in seen) for name, key in (
        ('arena_held', 'mem_arena_held'), ('arena_peak', 'mem_in_use_peak'),
        ('requested_peak', 'mem_bytes_requested_in_use'))}


def _resident() -> tuple[int, int]:
    """Return the resident size of this process and its peak, in bytes."""
    lines = Path('/proc/self/status').read_text(encoding='ascii').splitlines()
    sizes = {key: int(rest.split()[0]) << 10 for key, _, rest in
             (line.partition(':') for line in lines) if key in ('VmRSS', 'VmHWM')}
    return sizes['VmRSS'], sizes['VmHWM']
