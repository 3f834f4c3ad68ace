"""Routes of the fleet: devices and rollouts: pages, and the API that they use."""
