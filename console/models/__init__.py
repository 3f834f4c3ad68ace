"""The models that the console recognises with: bundles and galleries, by the device's own code."""
