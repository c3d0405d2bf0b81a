"""What an update does: to each token, as its gradient says and in fact, and for which reward."""
