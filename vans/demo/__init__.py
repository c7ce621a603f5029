"""`vans demo`: a local page that shows up to three futures of a video or picture, side by side and in step."""
