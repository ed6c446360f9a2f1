"""What came of a study, and tables of runs that were trained elsewhere."""
