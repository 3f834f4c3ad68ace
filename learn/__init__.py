"""From a folder of photos to a recogniser: `edge-train learn`. The room above trainer and quantize; it uses both."""
