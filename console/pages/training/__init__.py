"""Routes of training and evaluation: pages, and the API that they use."""
