"""`make demo`: runs the suite, shows it live, and leaves pictures and figures behind."""
