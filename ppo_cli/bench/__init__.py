"""How fast this program is, measured beside others."""
