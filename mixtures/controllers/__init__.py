"""Controllers: weights that move during training. One file each, named as its paper names it."""
