"""Pages that a command serves to a browser of this machine: the server they share, and the clips that play in step."""
