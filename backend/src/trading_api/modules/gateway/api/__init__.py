"""The gateway's HTTP routes and pages."""
