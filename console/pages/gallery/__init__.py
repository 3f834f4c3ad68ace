"""Routes of galleries: pages, and the API that they use."""
