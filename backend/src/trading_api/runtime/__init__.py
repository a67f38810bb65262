"""Everything that knows a framework: module system, HTTP, WebSockets, database, bus, settings."""
