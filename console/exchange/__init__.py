"""Exchanges annotations with other tools, both ways: Label Studio, CVAT, COCO, Pascal VOC."""
