"""One container engine: where it is, how it is reached, and its HTTP API."""
