"""`vans page`: one file that shows a run's results in motion, without asking anything of any network."""
