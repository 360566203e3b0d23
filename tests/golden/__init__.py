"""Trajectories recorded from the authors' own code and from other frameworks; README.md says more."""
