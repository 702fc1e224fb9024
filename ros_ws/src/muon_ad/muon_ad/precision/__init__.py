"""Fewer bits a number: FP16 and static INT8 of ONNX networks, and what it costs in accuracy.

Works on ONNX files with onnx and ONNX Runtime alone; torch is never imported.
"""
