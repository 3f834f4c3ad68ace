"""Capture: open cameras, files and folders, and deliver their frames.

This room owns reconnects, camera states, frozen and obstructed detection, the handover of frames to the pipeline, and
the recording of encoded video. It never runs a model and never publishes anything.
Read camera.py first, then open_source.py and latest_frames.py.
"""
