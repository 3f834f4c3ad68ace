"""The edge runtime: recognises which exact product or vehicle a camera sees, and publishes events.

`from edge import Recogniser` is the Python API; it is imported when it is first used.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from edge.recogniser import RecognisedObject, Recogniser, Recognition

__version__ = "0.1.0"
__all__ = ["RecognisedObject", "Recogniser", "Recognition", "__version__"]


def __getattr__(name: str) -> Any:
    if name in __all__:
        from edge import recogniser

        return getattr(recogniser, name)
    raise AttributeError(f"module 'edge' has no attribute {name!r}")
