"""RapidFire AI's import paths, so that its notebooks run here with only the package's name changed."""
