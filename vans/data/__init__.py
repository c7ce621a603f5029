"""From raw source videos to triplets: toy world, source layouts, shots, annotation, curation, reading."""
