"""What the evidence of a study is worth: intervals, claims, audits, attributions, measured."""
