"""Pictures: contact sheets, videos for notebooks, rollout groups laid open, curves, tables as figures, the
teaser.

Every function returns a matplotlib Figure or an HTML object and changes nothing else. ``style.save`` writes a
figure as PNG with bytes that depend on nothing but the picture.
"""
