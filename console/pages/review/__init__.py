"""Routes of the identity review: pages, and the API that they use."""
