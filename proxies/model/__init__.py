"""The proxy: a transformer with K models at once, its layers, loss and likelihoods."""
