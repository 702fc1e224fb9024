"""`muon-ad trace`: where the time of each frame goes, for ui.perfetto.dev."""
