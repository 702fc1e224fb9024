"""The life of a node's process, from rclpy.init to a clean end on SIGINT or SIGTERM."""

import gc
import os
import signal
import threading
from collections.abc import Callable

import rclpy
from rclpy.signals import SignalHandlerOptions
from rclpy.task import Future

from muon_ad_nodes.parts.executor import make_executor
from muon_ad_nodes.parts.executor import spin_until
from muon_ad_nodes.parts.lifecycle import SuiteNode
from muon_ad_nodes.parts.processes import wait_until_forsaken
from muon_ad_nodes.parts.shared_memory import ports_of_the_dead_avoided
from muon_ad_nodes.parts.transport import complaints

ENDING_SIGNALS = (signal.SIGINT, signal.SIGTERM)


def run(make: Callable[[], SuiteNode]) -> int:
    """Run the node that `make` returns until SIGINT or SIGTERM; return the exit status.

    One that a supervisor has started again also ends when nobody is left to look after it.

    The caller has blocked those signals (see main.py). A thread waits for them, so that they
    never interrupt a publish or a driver call, and the node is closed in order: a process that
    ends otherwise leaves its DDS segment in shared memory.
    """
    rclpy.init(signal_handler_options=SignalHandlerOptions.NO)
    executor = make_executor()
    # One that takes the place of a killed process must not take its ports.
    with ports_of_the_dead_avoided():
        node = make()
    for line in complaints(rclpy.get_rmw_implementation_identifier(), os.environ):
        node.get_logger().warning(line)
    node.publish_status()
    executor.add_node(node)
    ended = Future(executor=executor)
    endings = {
        'signals': _wait_for_signal, 'failure': node.failed.wait, 'keepers': wait_until_forsaken,
    }
    for name, wait in endings.items():
        threading.Thread(target=_end_after, args=(wait, ended), name=name, daemon=True).start()
    try:
        spin_until(executor, ended)
    finally:
        node.close()
        executor.remove_node(node)
        executor.shutdown()
        node.destroy_node()
        rclpy.shutdown()
    failed = node.failed.is_set()
    # The DDS participant goes, and its shared memory with it, when the last object of rclpy is
    # collected; what `realtime.settle` froze would not be, even at exit.
    del node, executor, ended
    gc.unfreeze()
    gc.collect()
    return int(failed)


def _wait_for_signal() -> None:
    # Not sigtimedwait: when a stopped process goes on (SIGCONT, resume from suspend) and its time
    # is over, CPython's returns a signal that nobody sent.
    signal.sigwaitinfo(ENDING_SIGNALS)


def _end_after(wait: Callable[[], object], ended: Future) -> None:
    wait()
    ended.set_result(None)
