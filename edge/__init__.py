"""The edge runtime: recognises which exact product or vehicle a camera sees, and publishes events."""

__version__ = "0.1.0"
