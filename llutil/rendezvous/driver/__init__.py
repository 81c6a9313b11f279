"""Room llutil/rendezvous/driver."""
