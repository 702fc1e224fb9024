"""`muon-ad top`: what the tasks on the graph do, live."""
