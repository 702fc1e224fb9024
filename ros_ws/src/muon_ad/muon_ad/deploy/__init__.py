"""What a model becomes on a Jetson, told without one: TensorRT's command, the DLA's share."""
