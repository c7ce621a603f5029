"""One term a file, the function named like the file."""
