""" "MQTT: the outbox, the publisher thread, payloads, commands, and the Home Assistant and Frigate integrations.

Owns every topic and payload, and the one connection to the broker.
Never runs a model, reads a camera or decides what an event says.
Read `device_publisher.py` first, then `publisher.py` and `outbox.py`.
"""
