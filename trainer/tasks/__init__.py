"""The tasks room: how each kind of network is trained, and what starts or follows a training.

Each of classifier.py, detector.py, embedder.py, finder.py and localiser.py implements `Task` of the training loop and
ends in a `train_…` function, which `edge-train` calls. It never parses arguments and never decodes data sets itself.
Read classifier.py first; embedder.py adds distillation, fine-tuning and backward compatibility.
"""
