"""Room llutil/rendezvous/hosted."""
