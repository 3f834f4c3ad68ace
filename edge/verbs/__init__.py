"""The verbs of the `edge` command: each builds what it runs, from arguments and the environment, and prints the answer.

Each imports the modules that it needs inside its function, so that `edge --help` starts fast. Decides nothing itself.
"""
