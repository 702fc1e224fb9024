"""`muon-ad models`: what is in model packages, whether they are whole, how fast, where from."""
