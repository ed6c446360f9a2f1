"""What `import cuvee` offers: tables, fits, recommendations, studies; for notebooks."""
