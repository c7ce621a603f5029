"""Pictures: contact sheets, videos for notebooks, rollout groups laid open, curves, tables as figures, the
teaser.

Every function returns a matplotlib Figure or an HTML object and changes nothing else. Words in cells of pandas' Stylers
are escaped from here on, so that a caption with markup or dollars is shown and not run. ``style.save`` writes a
figure as PNG with bytes that depend on nothing but the picture.
"""

import pandas as pd

pd.options.styler.format.escape = "html"
pd.options.styler.html.mathjax = pd.options.display.html.use_mathjax = False
