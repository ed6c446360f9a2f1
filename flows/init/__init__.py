"""`cuvee init`: from what lies in a folder to a first recipe, with comments."""
