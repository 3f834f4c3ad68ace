"""Routes of sets of pictures: pages, and the API that they use."""
