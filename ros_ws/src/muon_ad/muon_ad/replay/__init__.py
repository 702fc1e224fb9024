"""Networks over bags, one frame after the other: no ROS, no frame dropped, results compared."""
