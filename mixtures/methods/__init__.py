"""Methods: complete ways of choosing a mixture. One file each."""
