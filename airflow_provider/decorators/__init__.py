"""Task decorators: the same operators, written on a function."""
