"""The node that plays a bag dies or hangs under the supervisor; it then plays from the start."""

import pytest
import tiny_bags
from faults.processes import Blow
from faults.processes import HANG_S
from faults.processes import KILL
from faults.processes import SECTION
from faults.processes import STOP
from faults.processes import strike
from faults.processes import Watched
from launched import Graph
from launched import parameter_file
from sensor_msgs.msg import Image

from muon_ad.bags import BagWriter
from muon_ad_msgs.msg import DetectionArray

NODES = ('/bag_player', '/camera/style_transfer', '/camera/object_detector', '/supervisor')
# What the tasks make of its images; their clock, which is that of the bag, leaps back.
RESULTS = {
    '/bag_player': (Image, '/camera/style/image'),
    '/camera/object_detector': (DetectionArray, '/camera/detections'),
}
BLOWS = (KILL, STOP)
ROWS = [blow.row('/bag_player') for blow in BLOWS]


@pytest.fixture(scope='module')
def watched(negative_package, one_box_package, tmp_path_factory):
    """Both tasks at work on a bag that is played over and over."""
    folder = tmp_path_factory.mktemp('replay')
    with BagWriter(folder / 'bag') as writer:
        for number in range(100):
            time_ns = tiny_bags.START_NS + number * 33_000_000
            image = tiny_bags.image(number, time_ns, (160, 120))
            writer.write('/front', tiny_bags.IMAGE, time_ns, image)
    parameters = {
        '/camera/style_transfer': {'variant': 'small'},
        '/supervisor': {'hang_s': HANG_S, 'startup_s': 10.0},
    }
    watched = Watched(
        Graph(
            folder / 'log.txt', f'bag:={folder / "bag"}', 'image:=/front', 'loop:=true',
            f'style_model:={negative_package}', f'detector_model:={one_box_package}',
            parameter_file(folder, parameters), file='replay.launch.xml', nodes=NODES,
        ),
        RESULTS,
    )
    watched.wait_for_work()
    yield watched
    watched.close()


@pytest.mark.parametrize('blow', BLOWS, ids=lambda blow: blow.command)
def test_a_player_that_is_gone_comes_back_and_so_do_the_results(
    watched, fault_table, blow: Blow
):
    seconds = strike(watched, blow, ['/bag_player'])['/bag_player']
    watched.wait(lambda: all(watched.results.values()), 'results of both tasks')
    fault_table.add(SECTION, *blow.row('/bag_player'), seconds)
