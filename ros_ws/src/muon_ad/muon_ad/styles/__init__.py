"""Style images drawn by the project itself, so that they may be shipped with it."""
