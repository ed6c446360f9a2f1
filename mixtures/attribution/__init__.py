"""Attribution: what each domain is worth, by leaving it out and by the Shapley values of a law."""
