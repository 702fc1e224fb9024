"""Muon-AD: style transfer and object detection for robots, and how their networks are trained."""

__version__ = '0.1.0'
