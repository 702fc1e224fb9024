"""The stylizer as its launch file starts it: a goal over DDS, and the death of the node."""

import numpy as np
import psutil
import pytest
import tiny_backbones
from action_msgs.msg import GoalStatus
from launched import Graph
from rclpy.action import ActionClient

from muon_ad.images import to_rgb
from muon_ad.picture_files import write_picture
from muon_ad_msgs.action import Stylize

NODES = ('/stylizer', '/stylizer_supervisor')


@pytest.fixture
def graph(tmp_path):
    backbone = tiny_backbones.build_plain(tmp_path / 'backbone')
    graph = Graph(
        tmp_path / 'log.txt', f'backbone:={backbone}', 'device:=cpu', nodes=NODES,
        file='stylizer.launch.xml',
    )
    yield graph
    graph.close()


def test_a_goal_is_met_and_nothing_outlives_the_node(graph, tmp_path):
    graph.wait(lambda: _state(graph) == 'active', 60, 'the node to be active')
    client = ActionClient(graph.node, Stylize, '/stylizer/stylize')
    graph.wait(client.server_is_ready, 30, 'the action server')
    picture = tmp_path / 'picture.png'
    write_picture(picture, np.random.default_rng(0).integers(0, 255, (32, 48, 3), np.uint8))
    feedback = []

    def send(steps: int):
        goal = Stylize.Goal(content_path=str(picture), style_path=str(picture), steps=steps)
        reply = client.send_goal_async(goal, lambda message: feedback.append(message.feedback))
        graph.wait(reply.done, 30, 'the reply to the goal')
        assert reply.result().accepted
        return reply.result()

    end = send(2).get_result_async()
    graph.wait(end.done, 120, 'the picture')
    assert end.result().status == GoalStatus.STATUS_SUCCEEDED, end.result().result.message
    assert to_rgb(end.result().result.image).shape == (32, 48, 3)
    graph.wait(lambda: len(feedback) == 2, 30, 'feedback')
    assert all(np.isfinite([each.style_loss, each.content_loss]).all() for each in feedback)

    send(1000)
    graph.wait(lambda: len(feedback) > 2, 120, 'the first step of a long job')
    node = psutil.Process(graph.statuses['/stylizer'].pid)
    worker, = node.children()
    node.kill()
    graph.wait(lambda: _gone(worker), 30, 'the process of the job to end')
    graph.wait(
        lambda: _state(graph) == 'active' and graph.statuses['/stylizer'].pid != node.pid,
        90, 'the supervisor to start the node again',
    )
    client.destroy()


def _state(graph: Graph) -> str:
    status = graph.statuses.get('/stylizer')
    return '' if status is None else status.state


def _gone(process: psutil.Process) -> bool:
    return not process.is_running() or process.status() == psutil.STATUS_ZOMBIE
