"""Video files: reading pictures by time, writing."""
