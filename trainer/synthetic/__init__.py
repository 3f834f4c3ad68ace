"""A seeded synthetic world: objects, scenes, catalogue pictures and a moving-camera stream with exact ground truth."""
