"""The built-in modules; each package holds one and never imports another."""
