"""What an operator may do to a device from afar: each command is allowed by its owner, answered and audited.

Owns what each command does on the device. Takes no command that `agent.yaml` does not allow.
"""
