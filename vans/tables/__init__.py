"""Tables from scores: rows, claims, comparisons, what is printed and published."""
