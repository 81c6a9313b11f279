"""Operators: what a DAG file names."""
