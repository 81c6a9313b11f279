"""A rendezvous for nodes of which one hosts the store that all meet at. It needs no service.

The room may import torch and ``protocol``'s values.
"""
