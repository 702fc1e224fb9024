"""A camera's images through a node that runs as the launch file runs it, looked at from inside.

As programs: `steady.py node <name> --ros-args ...` is that node, and tells what its process has
used each time a line comes in, from the first on. `steady.py feed <encoding>` sends as many images
as a line says, each when the result of the one before has come.
"""

import gc
import json
import resource
import signal
import sys
import threading
import tracemalloc

SIZE = (480, 640)
RESULT_S, AGAIN_S = 20.0, 1.0


def run_node(name: str) -> int:
    """Run a node, and answer beside it."""
    # Before there are threads; see muon_ad_nodes/main.py.
    signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGINT, signal.SIGTERM))
    from muon_ad_nodes import main

    threading.Thread(target=_answer, daemon=True).start()
    return getattr(main, name)()


def _answer() -> None:
    for _ in sys.stdin:
        faults = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        tracemalloc.start()     # no more than once
        gc.collect()
        traced, _ = tracemalloc.get_traced_memory()
        print(json.dumps({'faults': faults, 'traced': traced}), flush=True)


def feed(encoding: str) -> None:
    """Send images in lock-step with their results."""
    from builtin_interfaces.msg import Time
    from rclpy.node import Node
    from sensor_msgs.msg import Image
    from support import wait_until

    from muon_ad_nodes.parts import qos
    from muon_ad_nodes.parts.executor import spinning

    message, come = _message(encoding), threading.Event()

    def receive(result: Image) -> None:
        if result.header.stamp == message.header.stamp:
            come.set()

    def answered() -> bool:
        publisher.publish(message)
        return come.wait(AGAIN_S)

    with spinning(lambda: Node('feeder')) as node:
        topic = 'image_raw' if isinstance(message, Image) else 'image_raw/compressed'
        publisher = node.create_publisher(type(message), topic, qos.PUBLISH)
        node.create_subscription(Image, 'style/image', receive, qos.SENSOR)
        number = 0
        for line in sys.stdin:
            for _ in range(int(line)):
                number += 1
                come.clear()
                message.header.stamp = Time(sec=number)
                wait_until(answered, RESULT_S, 'the result of an image')
            print('sent', flush=True)


def _message(encoding: str) -> object:
    """An image of SIZE, with colours that change slowly."""
    import cv2
    import numpy as np
    from builtin_interfaces.msg import Time
    from sensor_msgs.msg import CompressedImage

    from muon_ad_nodes.parts.images import to_message

    colours = np.random.default_rng(0).integers(0, 256, (15, 20, 3), np.uint8)
    pixels = cv2.resize(colours, SIZE[::-1])
    if encoding == 'jpeg':
        return CompressedImage(data=cv2.imencode('.jpg', pixels)[1].tobytes())
    return to_message(pixels, encoding, Time(), 'lens')


if __name__ == '__main__':
    role, argument = sys.argv[1:3]
    del sys.argv[1:3]
    sys.exit(run_node(argument) if role == 'node' else feed(argument))
