"""A small ROS process that hears itself: prints `ready` at its first image, then a dot each."""

import rclpy
from rclpy.executors import ExternalShutdownException
from sensor_msgs.msg import Image

from muon_ad_nodes.parts.shared_memory import ports_of_the_dead_avoided


def main() -> None:
    rclpy.init()
    with ports_of_the_dead_avoided():
        node = rclpy.create_node('chatter')
    publisher = node.create_publisher(Image, 'image', 1)
    words = iter(['ready'])
    node.create_subscription(Image, 'image', lambda _: print(next(words, '.'), flush=True), 1)
    node.create_timer(0.05, lambda: publisher.publish(Image()))
    try:
        rclpy.spin(node)
    except (KeyboardInterrupt, ExternalShutdownException):
        pass
    finally:
        node.destroy_node()
        rclpy.try_shutdown()


if __name__ == '__main__':
    main()
