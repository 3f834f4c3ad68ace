"""The mailbox of a device: reports to its fleet and messages from it, over MQTT.

Owns the topics, the numbers of reports and the connection. Never decides anything: a message only wakes the agent.
"""
