"""The ROS 2 side of Muon-AD: nodes, the parts they share, and the bringup."""
