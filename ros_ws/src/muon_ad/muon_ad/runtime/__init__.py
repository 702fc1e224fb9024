"""Inference with numpy and ONNX Runtime alone: importing it imports neither torch nor ROS."""
