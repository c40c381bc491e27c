"""Reports about runs, from the files that they leave; nothing here needs torch."""
