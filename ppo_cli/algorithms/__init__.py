"""The ladder of policy-gradient algorithms, one page each."""
