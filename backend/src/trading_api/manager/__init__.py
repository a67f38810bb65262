"""The manager: one CLI that renders, starts, watches and stops the fleet.

It knows the topology and asks the registry for manifests; it imports no module's code.
"""
