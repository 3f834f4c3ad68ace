"""Routes of the search: pages, and the API that they use."""
