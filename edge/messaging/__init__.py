"""MQTT: the outbox, the publisher thread, payloads, commands, and the Home Assistant and Frigate formats.

Owns every topic and payload, and the connection to the broker.
Never runs a model, reads a camera or decides what an event contains.
Read `device_publisher.py` first, then `publisher.py`, `delivery.py` and `outbox.py`.
"""
