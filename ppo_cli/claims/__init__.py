"""What the literature says about these algorithms, checked: one module a claim, each with its experiment."""
