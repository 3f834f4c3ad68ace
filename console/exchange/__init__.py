"""Exchange of boxes and identities with labelling tools: COCO, Pascal VOC, YOLO, CVAT and Label Studio, both ways."""
