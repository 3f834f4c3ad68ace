"""Video headers: what a file or stream says about its pictures before they are decoded.

This room reads the orientation of MP4 files and the sequence parameters of H.264. It never decodes a picture.
"""
