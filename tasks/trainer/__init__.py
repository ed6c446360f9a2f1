"""Runs that a program of others trains: the contract's files, the program, and how it is kept."""
