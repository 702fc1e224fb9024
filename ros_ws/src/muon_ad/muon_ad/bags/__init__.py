"""Bags without ROS: reading whatever is readable, pictures in messages, writing.

`open_bag` reads rosbag2 (MCAP, SQLite) and ROS 1 bags; `BagWriter` writes rosbag2.
"""

from muon_ad.bags.bag import Bag
from muon_ad.bags.bag import Message
from muon_ad.bags.bag import open_bag
from muon_ad.bags.error import BagError
from muon_ad.bags.types import message_class
from muon_ad.bags.write import BagWriter

__all__ = ('Bag', 'BagError', 'BagWriter', 'Message', 'message_class', 'open_bag')
