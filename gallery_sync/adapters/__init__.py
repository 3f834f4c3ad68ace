"""Other systems of fleets: hawkBit and Mender decide when, an OCI registry carries what. All bytes are verified here.

Each module is an adapter of its own. None of them decides what is genuine or whether a release works.
"""
