"""A person's word for a recommendation, and what it sets off: manifest and call."""
