"""Hooks: what owns a connection or a process of the outside."""
