"""What the evidence of a study is worth: its intervals, claims, audits and attributions, measured."""
