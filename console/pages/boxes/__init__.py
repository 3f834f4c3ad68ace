"""Routes of boxes: pages, and the API that they use."""
