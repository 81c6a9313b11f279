"""Room llutil/rendezvous/protocol."""
