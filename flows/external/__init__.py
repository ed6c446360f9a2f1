"""What is trained elsewhere: runs exported for a queue, collected again, and checkpoints scored."""
