"""Room llutil/rendezvous/handlers."""
