"""The mathematics of data mixtures.

Pure: no disk, clock, network, accelerator or global random state.
"""
