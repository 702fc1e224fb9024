"""Set-up of the suite on a bare machine: `python3 -m tools.setup` (standard library only)."""
