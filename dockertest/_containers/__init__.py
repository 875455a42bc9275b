"""Containers: create, start, reuse, watch, and everything done inside them."""
